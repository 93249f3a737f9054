// Says to a screen reader what has happened: what matters, together and not bit by bit.

const PAUSE = 600; // milliseconds in which things are gathered into one sentence
const LEISURE = 10_000; // milliseconds for things that can wait, as there will be more of them
const SILENCE = 30_000; // milliseconds without trouble after which trouble is told again

export class Announcer {
  #element;
  #words;
  #happened = new Map();
  #timer = 0;
  #due = 0;
  #said = -Infinity; // when trouble was told last

  /** `element` is a live region; `words` returns the words to speak in. */
  constructor(element, words) {
    this.#element = element;
    this.#words = words;
  }

  /** Say a text of the table; of several with the same key the number is said, or the last if it has none. */
  say(key, values = {}, { leisurely = false } = {}) {
    const before = this.#happened.get(key);
    this.#happened.delete(key);
    this.#happened.set(key, { ...values, count: (values.count ?? 1) + (before?.count ?? 0) });
    const due = performance.now() + (leisurely ? LEISURE : PAUSE);
    if (this.#timer && this.#due <= due) return;
    clearTimeout(this.#timer);
    this.#due = due;
    this.#timer = setTimeout(() => this.#speak(), leisurely ? LEISURE : PAUSE);
  }

  /** Say something of which there may be more than anybody wants to hear. */
  sayRarely(key) {
    const now = Date.now();
    if (now - this.#said > SILENCE) this.say(key);
    this.#said = now;
  }

  #speak() {
    this.#timer = 0;
    const words = this.#words();
    this.#element.textContent = [...this.#happened].map(([key, values]) => words.text(key, values)).join(" ");
    this.#happened.clear();
  }
}
