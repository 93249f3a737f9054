// One file in the list of the widget: what it is, how far it is, and what can be done with it.

import { icon, make, setAttribute, setText } from "./dom.js";

const LARGEST_THUMBNAIL = 32e6; // bytes; a browser decodes the whole picture for it
const LONG = 40; // characters of a name that gets a line of its own where there is little room
const WORTH_TELLING = 5; // seconds of a pause
const UNSETTLED = new Set(["checking", "finishing"]); // states in which nobody knows how long it takes
const ACTIONS = {
  waiting: "pause", checking: "pause", uploading: "pause", paused: "resume", offline: "retry", retrying: "retry", failed: "retry",
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
  /** `remove` is called when the person wants the file away; `words` and `hints` are read at each rendering. */
  constructor(item, { words, hints, remove }) {
    this.item = item;
    this.element = make("li", { class: "item", part: "item" });
    this._words = words;
    this._hints = hints;
    this._url = "";
    this._build(remove);
    this.render();
  }

  /** Free what the row holds. */
  close() {
    this._revoke();
    this.element.remove();
  }

  /** Where the focus goes when another row vanishes. */
  focus() {
    this._remove.focus();
  }

  render() {
    const { item } = this;
    const words = this._words();
    const { state } = item;
    setAttribute(this.element, "data-state", state);
    this._renderProgress(words);
    setText(this._state, this._stateIn(words));
    setText(this._amount, state === "done" ? words.bytes(item.size) : this._share(words));
    const moving = state === "uploading" && item.speed > 0;
    setText(this._speed, moving ? words.text("speed", { amount: words.bytes(item.speed) }) : "");
    const left = moving && Number.isFinite(item.secondsLeft);
    setText(this._left, left ? words.text("left", { time: words.duration(item.secondsLeft) }) : "");
    this._renderButtons(words);
    this._renderError(words);
  }

  _build(remove) {
    const { item } = this;
    this._thumbnail = make("span", { class: "thumbnail", part: "thumbnail" }, icon("file"), icon("done"), icon("failed"));
    this._name = make("span", { class: "name", part: "name", dir: "auto" });
    this._name.textContent = item.path ? `${item.path}/${item.name}` : item.name;
    this.element.classList.toggle("long", this._name.textContent.length > LONG);
    this._bar = make("progress", { part: "progress", max: "1" });
    this._state = make("span", { class: "state", part: "state" });
    this._amount = make("span");
    this._speed = make("span");
    this._left = make("span");
    const figures = make("span", { class: "figures" }, this._state, this._amount, this._speed, this._left);
    this._text = make("strong", { class: "text" });
    this._remedy = make("span");
    this._said = make("p");
    this._more = make("details", {}, (this._summary = make("summary")), this._said);
    this._error = make("div", { class: "error", part: "error", hidden: true }, this._text, this._remedy, this._more);
    this._action = make("button", { type: "button", part: "button", onclick: () => this._act() });
    this._remove = make("button", { type: "button", part: "button", onclick: () => remove(item) }, icon("remove"));
    this._remove.append(make("span", { class: "unseen" }));
    const buttons = make("span", { class: "buttons" }, this._action, this._remove);
    this.element.append(this._thumbnail, this._name, this._bar, figures, buttons, this._error);
    this._showPicture();
  }

  /** Say the state in words, and how long a pause is that the server has asked for. */
  _stateIn(words) {
    const { state, error } = this.item;
    if (error !== this._waitsFor) [this._waitsFor, this._until] = [error, Date.now() + 1000 * (error?.retryAfter ?? 0)];
    const seconds = (this._until - Date.now()) / 1000;
    if (state !== "retrying" || seconds < WORTH_TELLING) return words.text(`state.${state}`);
    return words.text("state.retrying.in", { time: words.duration(seconds) });
  }

  _act() {
    // Not by the state: what is done is what the button says.
    this.item[this._action.dataset.action]();
  }

  _share(words) {
    return words.text("amount", { done: words.bytes(this.item.bytes), total: words.bytes(this.item.size) });
  }

  _renderProgress(words) {
    const { bytes, size, state, name } = this.item;
    this._bar.hidden = state === "done" || state === "cancelled";
    setAttribute(this._bar, "aria-label", words.text("progress", { name }));
    const unsettled = UNSETTLED.has(state);
    setAttribute(this._bar, "value", unsettled ? null : String(size ? Math.min(1, bytes / size) : 0));
  }

  _renderButtons(words) {
    const { state, name, error } = this.item;
    const action = ACTIONS[state];
    const useful = action && !(state === "failed" && HOPELESS.has(error?.code));
    // A button that vanishes must not take the focus with it.
    if (!useful && this._action.getRootNode().activeElement === this._action) this._remove.focus();
    this._action.hidden = !useful;
    if (action) this._word(this._action, action, name, words);
    this._word(this._remove, "remove", name, words);
  }

  _word(button, action, name, words) {
    const label = words.text("label", { action: words.text(action), name });
    if (button.dataset.action !== action) {
      button.dataset.action = action;
      button.replaceChildren(icon(action), make("span", { class: action === "retry" ? "" : "unseen" }));
    }
    setText(button.lastChild, words.text(action));
    setAttribute(button, "aria-label", label);
    setAttribute(button, "title", words.text(action));
  }

  _renderError(words) {
    const { state, error } = this.item;
    // What passes by itself is told only where the server has said what it is.
    this._error.hidden = !error || !(state === "failed" || (state === "retrying" && error.status));
    if (this._error.hidden) return;
    const { text, remedy, details } = explain(error, words, this._hints());
    setText(this._text, text);
    setText(this._remedy, state === "failed" ? remedy : "");
    setText(this._summary, words.text("details"));
    setText(this._said, details);
    this._more.hidden = !details;
  }

  _showPicture() {
    const { file } = this.item;
    if (!file?.type.startsWith("image/") || file.size > LARGEST_THUMBNAIL) return;
    this._url = URL.createObjectURL(file);
    // Pictures that are out of sight, of hundreds perhaps, are not decoded.
    const picture = make("img", { alt: "", loading: "lazy", decoding: "async", draggable: "false", src: this._url });
    picture.onload = () => {
      this._thumbnail.classList.add("picture");
      this._revoke();
    };
    // What is no picture, or none that this browser knows, keeps the drawing of a file.
    picture.onerror = () => {
      picture.remove();
      this._revoke();
    };
    this._thumbnail.prepend(picture);
  }

  _revoke() {
    if (this._url) URL.revokeObjectURL(this._url);
    this._url = "";
  }
}
