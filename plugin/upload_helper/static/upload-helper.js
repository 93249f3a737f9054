// The widget: <upload-helper endpoint="/uploads">, a form control whose value is the uids of the files that arrived.

import { Announcer } from "./announcer.js";
import { setAttribute } from "./dom.js";
import { Frame } from "./frame.js";
import { Gatherer } from "./gather.js";
import { Row, explain } from "./row.js";
import { Token } from "./token.js";
import { Uploader } from "./uploader.js";
import { Words, addTexts, changes, languageOf } from "./words.js";
import "./upload-helper-list.js";

export { Uploader, addTexts };

const PAUSE = 150; // milliseconds between two looks at how far everything is
const SETTLED = new Set(["done", "failed", "cancelled"]);

/** A file that had arrived before: in a form that came back with something to mend, or that the browser restores. */
class Arrived {
  state = "done";
  file = null;

  constructor({ uploadUid, fileName, totalSize = 0 }) {
    Object.assign(this, { uploadUid, name: fileName || uploadUid, path: "", size: totalSize, bytes: totalSize });
  }
}

/** Return the value of JSON in an attribute, or `otherwise` where there is none; what is no JSON is a mistake. */
const parse = (text, otherwise) => (text ? JSON.parse(text) : otherwise);

export class UploadHelperElement extends HTMLElement {
  static formAssociated = true;

  static observedAttributes = [
    "accept", "csrf-token", "folders", "label", "lang", "max-file-size", "multiple", "required", "texts", "value",
  ];

  /** What goes with every request: an object, or a function that returns one. The attribute holds JSON. */
  headers = null;
  /** Further options of the Uploader, to be set before the widget is in the page. */
  options = {};

  #internals = this.attachInternals();
  #root = this.attachShadow({ mode: "open", delegatesFocus: true });
  #uploader = null;
  #frame = null;
  #words = new Words("en");
  #announcer = null;
  #listening = null;
  #token = null;
  #gatherer = new Gatherer(this, {
    take: (files) => this.add(files),
    over: (over) => this.#showOver(over),
    refuseFolder: () => this.#note("note.pick.one"),
  });
  #rows = new Map();
  #left = [];
  #over = false;
  #timer = 0;
  #value = "";
  #complaint = ""; // of an attempt to send the form, as long as it is shown

  // ---- For programs ----

  /** The Uploader behind the widget. */
  get uploader() {
    return (this.#uploader ??= this.#makeUploader());
  }

  /** The files in the list, in its order. */
  get items() {
    return [...this.#rows.keys()];
  }

  /** The files that have arrived: [{uploadUid, fileName, totalSize}]. */
  get uploads() {
    const arrived = this.items.filter(({ state }) => state === "done");
    return arrived.map(({ uploadUid, name, size }) => ({ uploadUid, fileName: name, totalSize: size }));
  }

  /** The uids of the files that have arrived. */
  get value() {
    return this.uploads.map(({ uploadUid }) => uploadUid);
  }

  /** The uids of uploads that are not finished, and that the person sees here. */
  get pending() {
    const open = this.items.filter(({ state }) => state !== "done");
    return [...open, ...this.#left].map(({ uploadUid }) => uploadUid).filter(Boolean);
  }

  get endpoint() { return this.getAttribute("endpoint") ?? "/uploads"; }
  get name() { return this.getAttribute("name") ?? ""; }
  get type() { return this.localName; }
  get form() { return this.#internals.form; }
  get labels() { return this.#internals.labels; }
  get validity() { return this.#internals.validity; }
  get validationMessage() { return this.#internals.validationMessage; }
  get willValidate() { return this.#internals.willValidate; }
  checkValidity() { return this.#internals.checkValidity(); }
  reportValidity() { return this.#internals.reportValidity(); }

  /** Upload files as if the person had chosen them; returns the items of those that were taken. */
  add(files) {
    const wanted = [...files];
    if (!this.#mayAdd(wanted.length)) return [];
    const fresh = wanted.filter((file) => !this.#isThere(file));
    const twice = wanted.find((file) => !fresh.includes(file));
    if (twice) this.#note("note.twice", { name: twice.name });
    return fresh.length ? this.uploader.add(fresh) : [];
  }

  /** Take files that have arrived out of the list, once nothing is under way; they are not deleted. */
  dismiss(uids) {
    if (this.items.some(({ state }) => !SETTLED.has(state))) return;
    const focused = this.#root.activeElement;
    for (const item of this.items) if (item.state === "done" && uids.includes(item.uploadUid)) this.#drop(item);
    if (focused && !focused.isConnected) this.#frame.input.focus();
  }

  // ---- For the browser ----

  connectedCallback() {
    if (!this.#frame) this.#build();
    // What stands in the page for browsers without JavaScript would be sent along with the form. It is not taken away:
    // a browser that comes back to a form fills it in only if it has the fields that it had.
    for (const control of this.querySelectorAll("input, button")) control.disabled = true;
    this.#listen();
    this.#reword();
    this.#findUnfinished();
  }

  disconnectedCallback() {
    this.#listening.abort();
    this.#gatherer.stop();
    // Who moves an element takes it away and puts it back at once.
    setTimeout(() => { if (!this.isConnected) this.#uploader?.pause(); });
  }

  attributeChangedCallback(name, before, now) {
    if (name === "csrf-token") this.#token?.set(now ?? "");
    if (name === "value") this.#restore(parse(now, []));
    if (this.#frame) this.#reword();
  }

  formAssociatedCallback() {
    if (this.#frame) this.#nameGroup();
  }

  formDisabledCallback(disabled) {
    if (!this.#frame) this.#build();
    this.#frame.disable(disabled);
  }

  formResetCallback() {
    for (const item of this.items) this.#remove(item);
    this.#restore(parse(this.getAttribute("value"), []));
  }

  formStateRestoreCallback(state) {
    this.#restore(parse(state, []));
  }

  // ---- Making ----

  #makeUploader() {
    this.#token = new Token(this.endpoint, this.getAttribute("csrf-header") ?? "X-CSRFToken");
    if (this.getAttribute("csrf-token")) this.#token.set(this.getAttribute("csrf-token"));
    const options = {
      accept: this.getAttribute("accept") ?? "", headers: (refusal) => this.#headers(refusal), wakeLock: true,
    };
    for (const name of ["parallel", "chunk-size", "max-file-size"]) {
      const key = name.replace(/-\w/g, (part) => part[1].toUpperCase());
      if (this.hasAttribute(name)) options[key] = Number(this.getAttribute(name));
    }
    const uploader = new Uploader(this.endpoint, { ...options, ...this.options });
    const on = (type, act) => uploader.addEventListener(type, ({ detail }) => act(detail?.item));
    on("add", (item) => this.#onAdd(item));
    on("state", (item) => this.#onState(item));
    on("progress", () => this.#renderSoon());
    on("done", (item) => this.#onDone(item));
    on("error", (item) => this.#onError(item));
    on("remove", (item) => this.#drop(item));
    on("idle", () => this.#emit("idle"));
    return uploader;
  }

  /** Return the headers of a request; after a refusal with a new token, if there is one. */
  async #headers(refusal) {
    if (refusal) await this.#token.renew();
    const given = typeof this.headers === "function" ? await this.headers(refusal) : this.headers;
    return { ...this.#token.headers(), ...parse(this.getAttribute("headers"), {}), ...given };
  }

  #build() {
    const take = (files) => this.add(files);
    this.#frame = new Frame({ take, pauseAll: () => this.#pauseAll(), nonce: this.nonce });
    this.#announcer = new Announcer(this.#frame.status, () => this.#words);
    for (const { element } of this.#rows.values()) this.#frame.list.append(element);
    this.#root.append(this.#frame.styles, this.#frame.element);
  }

  #listen() {
    const { signal } = (this.#listening = new AbortController());
    this.addEventListener("invalid", () => this.#frame.note((this.#complaint = this.validationMessage)), { signal });
    changes.addEventListener("change", () => this.#reword(), { signal });
    this.#gatherer.start();
  }

  // ---- Files come ----

  #mayAdd(count) {
    const one = !this.hasAttribute("multiple");
    if (this.matches(":disabled")) return false;
    if (count === 0) return this.#note("note.empty");
    if (one && count > 1) return this.#note("note.pick.one");
    if (one && this.#rows.size) return this.#note("note.one");
    this.#frame.note((this.#complaint = ""));
    return true;
  }

  #isThere({ name, size, lastModified, webkitRelativePath }) {
    return this.items.some(({ file, state }) => (
      file?.name === name && file.size === size && file.lastModified === lastModified && state !== "failed"
        && file.webkitRelativePath === webkitRelativePath
    ));
  }

  #showOver(over) {
    if (over !== this.#over) this.#frame.showOver(over);
    this.#over = over;
  }

  /** Say a text of the table where the person looks, and to who listens. */
  #note(key, values) {
    this.#complaint = "";
    this.#frame.note(this.#words.text(key, values));
    this.#announcer.say(key, values);
    return false;
  }

  // ---- What the uploader tells ----

  #onAdd(item) {
    this.#show(item);
    this.#announcer.say("say.added");
    this.#settle();
    this.#renderLeft();
    this.#emit("add", item);
  }

  #onState(item) {
    this.#rows.get(item)?.render();
    if (item.state === "offline" || item.state === "retrying") this.#announcer.say(`say.${item.state}`);
    this.#settle();
  }

  #onDone(item) {
    this.#rows.get(item)?.render();
    this.#announcer.say("say.done", { name: item.name });
    this.#settle();
    this.#emit("done", item);
  }

  #onError(item) {
    const { text } = explain(item.error ?? {}, this.#words, this.#hints());
    this.#announcer.say("say.failed", { name: item.name, error: text });
    this.#settle();
    this.#emit("error", item);
  }

  // ---- The list ----

  #show(item) {
    const row = new Row(item, {
      words: () => this.#words,
      hints: () => this.#hints(),
      remove: () => this.#remove(item),
    });
    this.#rows.set(item, row);
    this.#frame?.list.append(row.element);
  }

  #remove(item) {
    const items = this.items;
    const index = items.indexOf(item);
    const next = this.#rows.get(items[index + 1] ?? items[index - 1]);
    const focused = this.#rows.get(item)?.element.contains(this.#root.activeElement);
    if (item.state !== "done") item.cancel();
    else if (this.name) this.#delete(item.uploadUid);
    this.#drop(item);
    this.#announcer.say("say.removed", { name: item.name });
    if (focused) (next ?? this.#frame.input).focus();
  }

  #drop(item) {
    const row = this.#rows.get(item);
    if (!row) return;
    row.close();
    this.#rows.delete(item);
    if (!this.#complaint) this.#frame.note("");
    this.#settle();
    this.#emit("remove", item);
    this.#findUnfinished();
  }

  #restore(uploads) {
    for (const upload of uploads) {
      if (!this.value.includes(upload.uploadUid)) this.#show(new Arrived(upload));
    }
    if (this.#frame) this.#settle();
  }

  #pauseAll() {
    const moving = this.#summary().moving;
    if (moving) this.uploader.pause();
    else this.uploader.resume();
    this.#announcer.say(moving ? "say.paused" : "say.resumed");
  }

  /** Delete what has arrived of an upload; what can't be deleted now is deleted by its expiry. */
  async #delete(uid) {
    const headers = { "X-Upload-Helper": "1", ...(await this.#headers()) };
    await fetch(`${this.endpoint}/${uid}`, { method: "DELETE", headers }).catch(() => null);
  }

  // ---- What was left unfinished ----

  async #findUnfinished() {
    try {
      this.#left = await this.uploader.unfinished();
    } catch {
      // Without an answer nobody knows of any, and all else will tell what is wrong.
      this.#left = [];
    }
    this.#renderLeft();
  }

  #renderLeft() {
    const here = (left) => this.items.some(({ name, size }) => name === left.name && size === left.size);
    this.#frame.renderUnfinished(this.#words, this.#left.filter((left) => !here(left)), (left) => this.#discard(left));
    this.#emit("pending");
  }

  async #discard(left) {
    this.#frame.input.focus(); // The button vanishes.
    await this.uploader.discard(left.identifier);
    this.#announcer.say("say.deleted", { name: left.name });
    this.#findUnfinished();
  }

  // ---- Rendering ----

  #hints() {
    const limit = Number(this.getAttribute("max-file-size")) || 0;
    const types = (this.getAttribute("accept") ?? "").split(",").map((type) => type.trim()).filter(Boolean).join(", ");
    return { limit: limit ? this.#words.bytes(limit) : "", types };
  }

  #reword() {
    this.#words = new Words(languageOf(this), parse(this.getAttribute("texts"), {}));
    const { limit, types } = this.#hints();
    const [multiple, folders] = [this.hasAttribute("multiple"), this.hasAttribute("folders")];
    this.#frame.reword(this.#words, { multiple, folders, types, size: limit, accept: this.getAttribute("accept") });
    this.#nameGroup();
    this.#settle();
    this.#renderLeft();
    for (const row of this.#rows.values()) row.render();
  }

  #nameGroup() {
    const labels = [...this.#internals.labels].map(({ textContent }) => textContent.trim()).join(" ");
    setAttribute(this.#frame.element, "aria-label", this.getAttribute("label") || labels || this.#words.text("files"));
  }

  #renderSoon() {
    this.#timer ||= setTimeout(() => {
      this.#timer = 0;
      for (const [item, row] of this.#rows) if (!SETTLED.has(item.state)) row.render();
      this.#renderOverall();
    }, PAUSE);
  }

  #summary() {
    const { items } = this;
    const sum = (key) => items.reduce((total, item) => total + (item.state === "failed" ? 0 : item[key]), 0);
    const resting = items.some(({ state }) => state === "paused");
    const moving = items.some(({ state }) => !SETTLED.has(state) && state !== "paused");
    const done = items.filter(({ state }) => state === "done").length;
    return { count: items.length, done, bytes: sum("bytes"), total: sum("size"), resting, moving };
  }

  #renderOverall() {
    const { speed = 0, secondsLeft = Infinity } = this.#uploader?.progress ?? {};
    this.#frame.renderOverall(this.#words, { ...this.#summary(), speed, secondsLeft });
    this.#frame.list.hidden = !this.#rows.size;
    this.#frame.offer(this.hasAttribute("multiple") || !this.#rows.size);
  }

  /** Bring everything in step that depends on the states of the files: value, validity, and what is shown of all. */
  #settle() {
    this.#renderOverall();
    const uploads = JSON.stringify(this.uploads);
    const data = new FormData();
    for (const uid of this.value) data.append(this.name, uid);
    this.#internals.setFormValue(this.name ? data : null, uploads);
    this.#validate();
    if (uploads === this.#value) return;
    const first = this.#value === "";
    this.#value = uploads;
    if (!first) this.dispatchEvent(new Event("change", { bubbles: true }));
  }

  #validate() {
    const states = this.items.map(({ state }) => state);
    const failed = states.filter((state) => state === "failed").length;
    const waiting = states.filter((state) => !SETTLED.has(state)).length;
    const anchor = this.#frame.input.checkVisibility() ? this.#frame.input : this.#frame.element;
    const say = (flag, key, count) => {
      this.#internals.setValidity({ [flag]: true }, this.#words.text(key, { count }), anchor);
    };
    if (waiting) say("customError", "need.wait", waiting);
    else if (failed) say("customError", "need.mend", failed);
    else if (this.hasAttribute("required") && !this.value.length) say("valueMissing", "need.file", 1);
    else this.#internals.setValidity({});
    if (this.#complaint) this.#frame.note((this.#complaint = this.validationMessage));
  }

  #emit(what, item) {
    const { uploadUid, name: fileName, size: totalSize, error } = item ?? {};
    const detail = item ? { item, uploadUid, fileName, totalSize, error } : {};
    this.dispatchEvent(new CustomEvent(`upload-${what}`, { bubbles: true, composed: true, detail }));
  }
}

customElements.define("upload-helper", UploadHelperElement);
