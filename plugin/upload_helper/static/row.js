// One file in the list of the widget: what it is, how far it is, and what can be done with it.

import { icon, legible, make, setAttribute, setText, unbroken } from "./dom.js";

const LARGEST_THUMBNAIL = 32e6; // bytes; a browser decodes the whole picture for it
const WORTH_TELLING = 5; // seconds of a pause
const UNSETTLED = new Set(["checking", "finishing"]); // states in which nobody knows how long it takes
const ACTIONS = {
  waiting: "pause", checking: "pause", uploading: "pause", paused: "resume", offline: "retry", retrying: "retry",
  failed: "retry",
};
const HOPELESS = new Set(["too_large", "unsupported_type", "file_changed"]); // of the same file
const CODES = { 401: "unauthorized", 403: "forbidden", 404: "not_found", 413: "too_large", 415: "unsupported_type" };

/** Return what an error means to a person: text, remedy, and the server's words where it had any. */
export function explain(error, words, hints = {}) {
  const { code = "", status = 0, message = "", remedy = "" } = error;
  const details = status ? `${message} (${status})` : "";
  const known = words.has(`error.${code}`);
  // An error of the host's own is worded by the host.
  if (!known && remedy && status < 500) return { text: message, remedy, details: "" };
  let kind = known ? code : CODES[status] ?? (status >= 500 ? "server_error" : "other");
  if (!known && /csrf/i.test(message)) kind = "csrf";
  if (code === "stalled") kind = "no_connection";
  const hint = { too_large: "limit", unsupported_type: "types" }[kind];
  const text = words.text(hints[hint] ? `error.${kind}.${hint}` : `error.${kind}`, hints);
  return { text, remedy: words.text(`remedy.${kind}`), details };
}

/** The list item of one upload. */
export class Row {
  #words;
  #hints;
  #url = "";
  #waitsFor = null; // the error whose pause is counted down
  #until = 0;
  #thumbnail = make("span", { class: "thumbnail", part: "thumbnail" }, icon("file"), icon("done"), icon("failed"));
  #name = make("span", { class: "name", part: "name", dir: "auto" });
  #bar = make("progress", { part: "progress", max: "1" });
  #state = make("span", { class: "state", part: "state" });
  #amount = make("span");
  #speed = make("span");
  #left = make("span");
  #text = make("strong", { class: "text" });
  #remedy = make("span");
  #said = make("p");
  #summary = make("summary");
  #more = make("details", {}, this.#summary, this.#said);
  #error = make("div", { class: "error", part: "error", hidden: true }, this.#text, this.#remedy, this.#more);
  #action = make("button", { type: "button", part: "button", onclick: () => this.#act() });
  #remove;

  /** `remove` is called when the person wants the file away; `words` and `hints` are read at each rendering. */
  constructor(item, { words, hints, remove }) {
    this.item = item;
    this.element = make("li", { class: "item", part: "item" });
    this.#words = words;
    this.#hints = hints;
    this.#remove = make("button", { type: "button", part: "button", onclick: () => remove(item) }, icon("remove"));
    this.#build();
    this.render();
  }

  /** Free what the row holds. */
  close() {
    this.#revoke();
    this.element.remove();
  }

  /** Where the focus goes when another row vanishes. */
  focus() {
    this.#remove.focus();
  }

  render() {
    const { item } = this;
    const words = this.#words();
    const { state } = item;
    setAttribute(this.element, "data-state", state);
    this.#renderProgress(words);
    setText(this.#state, this.#stateIn(words));
    const begun = state !== "done" && (state !== "failed" || item.bytes > 0);
    setText(this.#amount, begun ? this.#share(words) : words.bytes(item.size));
    const moving = state === "uploading" && item.speed > 0;
    setText(this.#speed, moving ? words.text("speed", { amount: words.bytes(item.speed) }) : "");
    const left = moving && Number.isFinite(item.secondsLeft);
    setText(this.#left, left ? words.text("left", { time: words.duration(item.secondsLeft) }) : "");
    this.#renderButtons(words);
    this.#renderError(words);
  }

  #build() {
    const { item } = this;
    this.#name.textContent = legible(item.path ? `${item.path}/${item.name}` : item.name);
    const figures = make("span", { class: "figures" }, this.#state, this.#amount, this.#speed, this.#left);
    this.#remove.append(make("span", { class: "unseen" }));
    const buttons = make("span", { class: "buttons" }, this.#action, this.#remove);
    this.element.append(this.#thumbnail, this.#name, this.#bar, figures, buttons, this.#error);
    this.#showPicture();
  }

  /** Say the state in words, and how long a pause is that the server has asked for. */
  #stateIn(words) {
    const { state, error } = this.item;
    if (error !== this.#waitsFor) [this.#waitsFor, this.#until] = [error, Date.now() + 1000 * (error?.retryAfter ?? 0)];
    const seconds = (this.#until - Date.now()) / 1000;
    if (state !== "retrying" || seconds < WORTH_TELLING) return words.text(`state.${state}`);
    return words.text("state.retrying.in", { time: unbroken(words.duration(seconds)) });
  }

  #act() {
    // Not by the state: what is done is what the button says.
    this.item[this.#action.dataset.action]();
  }

  #share(words) {
    return words.text("amount", { done: words.bytes(this.item.bytes), total: words.bytes(this.item.size) });
  }

  #renderProgress(words) {
    const { bytes, size, state, name } = this.item;
    this.#bar.hidden = state === "done" || state === "cancelled" || (state === "failed" && !bytes);
    setAttribute(this.#bar, "aria-label", words.text("progress", { name }));
    const unsettled = UNSETTLED.has(state);
    setAttribute(this.#bar, "value", unsettled ? null : String(size ? Math.min(1, bytes / size) : 0));
  }

  #renderButtons(words) {
    const { state, name, error } = this.item;
    const action = ACTIONS[state];
    const useful = action && !(state === "failed" && HOPELESS.has(error?.code));
    // A button that vanishes must not take the focus with it.
    if (!useful && this.#action.getRootNode().activeElement === this.#action) this.#remove.focus();
    this.#action.hidden = !useful;
    if (action) this.#word(this.#action, action, name, words);
    this.#word(this.#remove, "remove", name, words);
  }

  #word(button, action, name, words) {
    const label = words.text("label", { action: words.text(action), name });
    if (button.dataset.action !== action) {
      button.dataset.action = action;
      button.replaceChildren(icon(action), make("span", { class: action === "retry" ? "" : "unseen" }));
    }
    setText(button.lastChild, words.text(action));
    setAttribute(button, "aria-label", label);
    setAttribute(button, "title", words.text(action));
  }

  #renderError(words) {
    const { state, error } = this.item;
    // What passes by itself is told only where the server has said what it is.
    this.#error.hidden = !error || !(state === "failed" || (state === "retrying" && error.status));
    if (this.#error.hidden) return;
    const { text, remedy, details } = explain(error, words, this.#hints());
    setText(this.#text, text);
    setText(this.#remedy, state === "failed" ? remedy : "");
    setText(this.#summary, words.text("details"));
    setText(this.#said, details);
    this.#more.hidden = !details;
  }

  #showPicture() {
    const { file } = this.item;
    if (!file?.type.startsWith("image/") || file.size > LARGEST_THUMBNAIL) return;
    this.#url = URL.createObjectURL(file);
    // Pictures that are out of sight, of hundreds perhaps, are not decoded.
    const picture = make("img", { alt: "", loading: "lazy", decoding: "async", draggable: "false", src: this.#url });
    picture.onload = () => {
      this.#thumbnail.classList.add("picture");
      this.#revoke();
    };
    // What is no picture, or none that this browser knows, keeps the drawing of a file.
    picture.onerror = () => {
      picture.remove();
      this.#revoke();
    };
    this.#thumbnail.prepend(picture);
  }

  #revoke() {
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = "";
  }
}
