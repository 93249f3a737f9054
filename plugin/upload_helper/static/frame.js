// What stands around the list of files in the widget: where they come in, what was left unfinished, how far all are.

import { icon, legible, make, setAttribute, setText } from "./dom.js";

const STYLES = new URL("./upload-helper.css", import.meta.url).href;

// A click there would else focus the first control of the widget, and scroll to it: away from where the person is.
const MERE_TEXT = { tabindex: "-1", hidden: true };

/** The elements of the widget but for its rows. */
export class Frame {
  list = make("ul", { class: "items", part: "items", role: "list", ...MERE_TEXT });
  status = make("p", { class: "unseen", role: "status" });
  #note = make("p", { class: "note", part: "note", ...MERE_TEXT });
  #choose = make("strong", { part: "link" });
  #drop = make("span");
  #release = make("strong", { class: "release" });
  #folder;
  #folders;
  #chooseFolder = make("span");
  #hint = make("p", { class: "hint", id: "hint", part: "hint" });
  #zone;
  #unfinished;
  #unfinishedTitle = make("p", { id: "unfinished", class: "heading" });
  #unfinishedText = make("p");
  #left = make("ul", { role: "list" });
  #overall;
  #count = make("strong");
  #amount = make("span");
  #speed = make("span");
  #timeLeft = make("span");
  #all;
  #bar = make("progress", { max: "1", part: "progress" });

  /** `take` gets the picked files, `pauseAll` is called by the button for all, `nonce` allows the style sheet. */
  constructor({ take, pauseAll, nonce }) {
    const onchange = ({ target }) => {
      take(target.files);
      target.value = "";
    };
    this.input = make("input", { type: "file", class: "unseen", "aria-describedby": "hint", onchange });
    this.#folder = make("input", { type: "file", class: "unseen", webkitdirectory: true, multiple: true, onchange });
    this.element = make(
      "div", { class: "root", part: "root", role: "group" },
      this.#makeDrop(), this.#note, this.#makeUnfinished(), this.#makeOverall(pauseAll), this.list, this.status,
    );
    this.styles = this.#makeStyles(nonce);
  }

  /** Say something to the person who looks; a screen reader is told elsewhere. */
  note(text) {
    setText(this.#note, text);
    this.#note.hidden = !text;
  }

  /** Disable or enable what takes files. */
  disable(disabled) {
    setAttribute(this.element, "data-disabled", disabled ? "" : null);
    for (const input of [this.input, this.#folder]) input.disabled = disabled;
  }

  /** Show that files are dragged over the widget. */
  showOver(over) {
    setAttribute(this.element, "data-over", over ? "" : null);
  }

  /** Write everything that does not depend on the files; `types` and `size` are what is allowed, in words, or "". */
  reword(words, { multiple, folders, types, size, accept }) {
    const number = multiple ? "many" : "one";
    setText(this.#choose, words.text(`choose.${number}`));
    setText(this.#drop, words.text(`drop.${number}`));
    setText(this.#release, words.text("drop.now"));
    setText(this.#chooseFolder, words.text("choose.folder"));
    this.#folders.hidden = !folders || !multiple;
    this.input.multiple = multiple;
    setAttribute(this.input, "accept", accept);
    const hints = [size && words.text("hint.size", { size }), types && words.text("hint.types", { types })];
    this.#hint.replaceChildren(...hints.filter(Boolean).map((hint) => make("span", {}, hint)));
    this.#hint.hidden = !this.#hint.textContent;
    setText(this.#unfinishedTitle, words.text("unfinished.title"));
    setText(this.#unfinishedText, words.text("unfinished.text"));
    setAttribute(this.list, "aria-label", words.text("files"));
    setAttribute(this.#bar, "aria-label", words.text("overall.label"));
  }

  /** Offer the place where files come in, or take it away where one file is enough and there. */
  offer(open) {
    this.#zone.hidden = !open;
  }

  /** Show the uploads that are to be gone on with; `discard` is called with the one whose button is pressed. */
  renderUnfinished(words, uploads, discard) {
    const rows = uploads.map((upload) => {
      const { name, size, received } = upload;
      const amount = words.text("unfinished.amount", { received: words.bytes(received), total: words.bytes(size) });
      const text = words.text("unfinished.delete");
      const label = words.text("label", { action: text, name });
      const properties = { type: "button", part: "button", "aria-label": label, onclick: () => discard(upload) };
      const told = make("span", {}, make("strong", { dir: "auto" }, legible(name)), make("small", {}, amount));
      return make("li", {}, told, make("button", properties, text));
    });
    const focused = this.#left.contains(this.#left.getRootNode().activeElement);
    this.#left.replaceChildren(...rows);
    this.#unfinished.hidden = !rows.length;
    if (focused) this.input.focus();
  }

  /** Show how far all files are; `moving` and `resting` say whether there are any to pause or to go on with. */
  renderOverall(words, { count, done, bytes, total, speed, secondsLeft, moving, resting }) {
    this.#overall.hidden = count < 2;
    if (this.#overall.hidden) return;
    const finished = done === count;
    setText(this.#count, words.text(finished ? "overall.done" : "overall.count", { done, count }));
    const amount = words.text("amount", { done: words.bytes(bytes), total: words.bytes(total) });
    setText(this.#amount, finished ? words.bytes(total) : total ? amount : "");
    const running = !finished && total && moving && speed > 0;
    setText(this.#speed, running ? words.text("speed", { amount: words.bytes(speed) }) : "");
    const known = running && Number.isFinite(secondsLeft);
    setText(this.#timeLeft, known ? words.text("left", { time: words.duration(secondsLeft) }) : "");
    this.#bar.hidden = finished || !total;
    setAttribute(this.#bar, "value", String(total ? Math.min(1, bytes / total) : 0));
    this.#all.hidden = !moving && !resting;
    setText(this.#all, words.text(moving ? "pause.all" : "resume.all"));
  }

  #makeDrop() {
    const call = make("span", { class: "call" }, this.#choose, " ", this.#drop);
    const choose = make("label", { class: "choose" }, this.input, icon("upload"), call, this.#release);
    const folder = [this.#folder, icon("folder"), this.#chooseFolder];
    this.#folders = make("label", { class: "button", part: "button" }, ...folder);
    this.#zone = make("div", { class: "drop", part: "drop" }, choose, this.#folders, this.#hint);
    return this.#zone;
  }

  #makeUnfinished() {
    const named = { role: "group", "aria-labelledby": "unfinished" };
    const properties = { class: "unfinished", part: "unfinished", ...named, ...MERE_TEXT };
    this.#unfinished = make("div", properties, this.#unfinishedTitle, this.#unfinishedText, this.#left);
    return this.#unfinished;
  }

  #makeOverall(pauseAll) {
    this.#all = make("button", { type: "button", part: "button", onclick: pauseAll });
    const figures = make("span", { class: "figures" }, this.#amount, this.#speed, this.#timeLeft);
    const text = make("p", {}, this.#count, " ", figures);
    this.#overall = make("div", { class: "overall", part: "overall", ...MERE_TEXT }, text, this.#all, this.#bar);
    return this.#overall;
  }

  #makeStyles(nonce) {
    // Not a moment without its looks. This way no content security policy objects.
    this.element.style.visibility = "hidden";
    const show = () => { this.element.style.visibility = ""; };
    const link = make("link", { rel: "stylesheet", onload: show, onerror: show });
    if (nonce) link.nonce = nonce;
    link.href = STYLES;
    return link;
  }
}
