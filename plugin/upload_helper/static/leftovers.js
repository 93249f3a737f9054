// What was left unfinished: by an earlier visit, a crash, or another tab.

const keyOf = ({ name, size }) => `${size} ${name}`;

/** The uploads that a widget offers to go on with. */
export class Leftovers {
  #widget;
  #show;
  #found = [];
  #looks = 0;
  #text = "[]"; // of what is shown

  /** `show` is called with those that are to be shown. */
  constructor(widget, show) {
    this.#widget = widget;
    this.#show = show;
  }

  /** Follow what other widgets on the page, and other tabs, do with them. */
  follow(signal) {
    const on = (type, act) => document.addEventListener(type, act, { signal });
    const others = (act) => ({ target }) => target !== this.#widget && act();
    on("upload-add", others(() => this.show()));
    on("upload-remove", others(() => this.look()));
    on("visibilitychange", () => document.hidden || this.look());
  }

  /** Those that were found, and are not in the list of a widget on the page again. */
  get shown() {
    if (!this.#found.length) return [];
    const widgets = new Set([this.#widget, ...document.querySelectorAll(this.#widget.localName)]);
    const here = new Set([...widgets].flatMap(({ items = [] }) => items.map(keyOf)));
    return this.#found.filter((left) => !here.has(keyOf(left)));
  }

  /** Ask the server what there is, and show it. */
  async look() {
    const look = ++this.#looks;
    // Without an answer nobody knows of any, and all else will tell what is wrong.
    const found = await this.#widget.uploader.unfinished().catch(() => []);
    // An older answer may come later.
    if (look !== this.#looks) return;
    this.#found = found;
    this.show();
  }

  /** Show them where they are others than before. */
  show({ anew = false } = {}) {
    const { shown } = this;
    const text = JSON.stringify(shown);
    if (text === this.#text && !anew) return;
    this.#text = text;
    this.#show(shown);
  }

  /** Delete one on the server. */
  async discard({ identifier }) {
    await this.#widget.uploader.discard(identifier);
    await this.look();
  }
}
