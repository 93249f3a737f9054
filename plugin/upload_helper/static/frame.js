// What stands around the list of files in the widget: where they come in, what was left unfinished, how far all are.

import { icon, make, setAttribute, setText } from "./dom.js";

const STYLES = new URL("./upload-helper.css", import.meta.url).href;

/** The elements of the widget but for its rows. */
export class Frame {
  /** `take` gets the files of the picker, `pauseAll` is called by the button for all, `nonce` allows the style sheet. */
  constructor({ take, pauseAll, nonce }) {
    const onchange = ({ target }) => {
      take(target.files);
      target.value = "";
    };
    this.input = make("input", { type: "file", class: "unseen", "aria-describedby": "hint", onchange });
    this._folder = make("input", { type: "file", class: "unseen", webkitdirectory: true, multiple: true, onchange });
    this.list = make("ul", { class: "items", part: "items", role: "list", hidden: true });
    this.status = make("p", { class: "unseen", role: "status" });
    this._note = make("p", { class: "note", part: "note", hidden: true });
    this.element = make(
      "div", { class: "root", part: "root", role: "group" },
      this._makeDrop(), this._note, this._makeUnfinished(), this._makeOverall(pauseAll), this.list, this.status,
    );
    this.styles = this._makeStyles(nonce);
  }

  /** Say something to the person who looks; a screen reader is told elsewhere. */
  note(text) {
    setText(this._note, text);
    this._note.hidden = !text;
  }

  /** Disable or enable what takes files. */
  disable(disabled) {
    setAttribute(this.element, "data-disabled", disabled ? "" : null);
    for (const input of [this.input, this._folder]) input.disabled = disabled;
  }

  /** Show that files are dragged over the widget. */
  showOver(over) {
    setAttribute(this.element, "data-over", over ? "" : null);
  }

  /** Write everything that does not depend on the files; `types` and `size` are what is allowed, in words, or "". */
  reword(words, { multiple, folders, types, size, accept }) {
    const number = multiple ? "many" : "one";
    setText(this._choose, words.text(`choose.${number}`));
    setText(this._drop, words.text(`drop.${number}`));
    setText(this._release, words.text("drop.now"));
    setText(this._chooseFolder, words.text("choose.folder"));
    this._folders.hidden = !folders || !multiple;
    this.input.multiple = multiple;
    setAttribute(this.input, "accept", accept);
    const hints = [size && words.text("hint.size", { size }), types && words.text("hint.types", { types })];
    setText(this._hint, hints.filter(Boolean).join(" · "));
    this._hint.hidden = !this._hint.textContent;
    setText(this._unfinishedTitle, words.text("unfinished.title"));
    setText(this._unfinishedText, words.text("unfinished.text"));
    setAttribute(this.list, "aria-label", words.text("files"));
    setAttribute(this._bar, "aria-label", words.text("overall.label"));
  }

  /** Offer the place where files come in, or take it away where one file is enough and there. */
  offer(open) {
    this._zone.hidden = !open;
  }

  /** Show the uploads that are to be gone on with; `discard` is called with the one whose button is pressed. */
  renderUnfinished(words, uploads, discard) {
    const rows = uploads.map((upload) => {
      const { name, size, received } = upload;
      const amount = words.text("unfinished.amount", { received: words.bytes(received), total: words.bytes(size) });
      const text = words.text("unfinished.delete");
      const label = words.text("label", { action: text, name });
      const button = make("button", { type: "button", part: "button", "aria-label": label, onclick: () => discard(upload) }, text);
      return make("li", {}, make("span", {}, make("strong", { dir: "auto" }, name), make("small", {}, amount)), button);
    });
    const focused = this._left.contains(this._left.getRootNode().activeElement);
    this._left.replaceChildren(...rows);
    this._unfinished.hidden = !rows.length;
    if (focused) this.input.focus();
  }

  /** Show how far all files are; `moving` and `resting` say whether there are any to pause or to go on with. */
  renderOverall(words, { count, done, bytes, total, speed, secondsLeft, moving, resting }) {
    this._overall.hidden = count < 2;
    if (this._overall.hidden) return;
    const finished = done === count;
    setText(this._count, words.text(finished ? "overall.done" : "overall.count", { done, count }));
    const figures = [words.text("amount", { done: words.bytes(bytes), total: words.bytes(total) })];
    if (moving && speed > 0) {
      figures.push(words.text("speed", { amount: words.bytes(speed) }));
      if (Number.isFinite(secondsLeft)) figures.push(words.text("left", { time: words.duration(secondsLeft) }));
    }
    setText(this._figures, finished ? words.bytes(total) : total ? figures.join(" · ") : "");
    this._bar.hidden = finished || !total;
    setAttribute(this._bar, "value", String(total ? Math.min(1, bytes / total) : 0));
    this._all.hidden = !moving && !resting;
    setText(this._all, words.text(moving ? "pause.all" : "resume.all"));
  }

  _makeDrop() {
    this._choose = make("strong", { part: "link" });
    this._drop = make("span");
    this._release = make("strong", { class: "release" });
    this._chooseFolder = make("span");
    this._hint = make("p", { class: "hint", id: "hint", part: "hint" });
    const call = make("span", { class: "call" }, this._choose, " ", this._drop);
    const choose = make("label", { class: "choose" }, this.input, icon("upload"), call, this._release);
    this._folders = make("label", { class: "button", part: "button" }, this._folder, icon("folder"), this._chooseFolder);
    this._zone = make("div", { class: "drop", part: "drop" }, choose, this._folders, this._hint);
    return this._zone;
  }

  _makeUnfinished() {
    this._unfinishedTitle = make("p", { id: "unfinished", class: "heading" });
    this._unfinishedText = make("p");
    this._left = make("ul", { role: "list" });
    const properties = { class: "unfinished", part: "unfinished", role: "group", "aria-labelledby": "unfinished", hidden: true };
    this._unfinished = make("div", properties, this._unfinishedTitle, this._unfinishedText, this._left);
    return this._unfinished;
  }

  _makeOverall(pauseAll) {
    this._count = make("strong");
    this._figures = make("span", { class: "figures" });
    this._all = make("button", { type: "button", part: "button", onclick: pauseAll });
    this._bar = make("progress", { max: "1", part: "progress" });
    const text = make("p", {}, this._count, " ", this._figures);
    this._overall = make("div", { class: "overall", part: "overall", hidden: true }, text, this._all, this._bar);
    return this._overall;
  }

  _makeStyles(nonce) {
    // Not a moment without its looks.
    setAttribute(this.element, "data-loading", "");
    const show = () => setAttribute(this.element, "data-loading", null);
    const link = make("link", { rel: "stylesheet", onload: show, onerror: show });
    if (nonce) link.nonce = nonce;
    link.href = STYLES;
    return link;
  }
}
