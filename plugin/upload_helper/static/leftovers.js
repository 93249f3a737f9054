// What was left unfinished: by an earlier visit, a crash, or another tab.

const keyOf = ({ name, size }) => `${size} ${name}`;

/** The uploads that a widget offers to go on with. */
export class Leftovers {
  /** `show` is called with those that are to be shown. */
  constructor(widget, show) {
    Object.assign(this, { _widget: widget, _show: show, _found: [], _looks: 0, _text: "[]" });
  }

  /** The uids of those that were found. */
  get uids() {
    return this._found.map(({ uploadUid }) => uploadUid);
  }

  /** Ask the server what there is, and show it. */
  async look() {
    const look = ++this._looks;
    // Without an answer nobody knows of any, and all else will tell what is wrong.
    const found = await this._widget.uploader.unfinished().catch(() => []);
    // An older answer may come later.
    if (look !== this._looks) return;
    this._found = found;
    this.show();
  }

  /** Show those that are not in the widget's list again. */
  show({ anew = false } = {}) {
    const here = new Set(this._widget.items.map(keyOf));
    const shown = this._found.filter((left) => !here.has(keyOf(left)));
    const text = JSON.stringify(shown);
    if (text === this._text && !anew) return;
    this._text = text;
    this._show(shown);
  }

  /** Delete one on the server. */
  async discard({ identifier }) {
    await this._widget.uploader.discard(identifier);
    await this.look();
  }
}
