// Says to a screen reader what has happened: what matters, together and not bit by bit.

const PAUSE = 600; // milliseconds in which things are gathered into one sentence
const SILENCE = 30_000; // milliseconds without trouble after which trouble is told again

export class Announcer {
  /** `element` is a live region; `words` returns the words to speak in. */
  constructor(element, words) {
    this._element = element;
    this._words = words;
    this._happened = new Map();
    this._timer = 0;
  }

  /** Say a text of the table, soon; of several with the same key the number is said, or the last if it has none. */
  say(key, values = {}) {
    const before = this._happened.get(key);
    this._happened.delete(key);
    this._happened.set(key, { ...values, count: (values.count ?? 1) + (before?.count ?? 0) });
    this._timer ||= setTimeout(() => this._speak(), PAUSE);
  }

  /** Say something of which there may be more than anybody wants to hear. */
  sayRarely(key) {
    const now = Date.now();
    if (now - (this._said ?? 0) > SILENCE) this.say(key);
    this._said = now;
  }

  _speak() {
    this._timer = 0;
    const words = this._words();
    this._element.textContent = [...this._happened].map(([key, values]) => words.text(key, values)).join(" ");
    this._happened.clear();
  }
}
