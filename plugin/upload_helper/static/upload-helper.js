// The widget: <upload-helper endpoint="/uploads">, a form control whose value is the uids of the files that arrived.

import { Announcer } from "./announcer.js";
import { Arrived } from "./arrived.js";
import { isolated, setAttribute } from "./dom.js";
import { Frame } from "./frame.js";
import { Gatherer } from "./gather.js";
import { Leftovers } from "./leftovers.js";
import { Row, explain } from "./row.js";
import { headersOf, hintsOf, limitsOf, optionsOf, parsed, valueOf } from "./settings.js";
import { complaintOf, isSettled, summaryOf } from "./states.js";
import { Token } from "./token.js";
import { Uploader } from "./uploader.js";
import { Words, addTexts, changes, languageOf } from "./words.js";
import "./upload-helper-list.js";

export { Uploader, addTexts };

const PAUSE = 150; // milliseconds between two looks at how far everything is
const CHANGING = new Set(["uploading", "finishing", "retrying"]); // states in which a row has new figures all the time

export class UploadHelperElement extends HTMLElement {
  static formAssociated = true;

  static observedAttributes = [
    "accept", "csrf-token", "folders", "label", "lang", "max-file-size", "multiple", "required", "texts", "value",
  ];

  /** What goes with every request: an object, or a function that returns one. The attribute holds JSON. */
  headers = this.headers ?? null; // as it was set before the script has come
  /** Further options of the Uploader, to be set before the widget is in the page. */
  options = this.options ?? {};

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
    over: (over) => this.#frame.showOver(over),
    refuseFolder: () => this.#note("note.pick.one"),
  });
  #rows = new Map();
  #left = new Leftovers(this, (uploads) => this.#showLeft(uploads));
  #changed = new Set();
  #timer = 0;
  #settling = false;
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
    return arrived.map(described);
  }

  /** The uids of the files that have arrived. */
  get value() {
    return this.uploads.map(({ uploadUid }) => uploadUid);
  }

  /** The uploads that are not finished, and that the person sees here; without uploadUid until that is known. */
  get pending() {
    return [...this.items.filter(({ state }) => state !== "done"), ...this.#left.shown].map(described);
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
    if (!this.#frame) this.#build();
    const wanted = [...files];
    if (!this.#mayAdd(wanted.length)) return [];
    const fresh = wanted.filter((file) => !this.#isThere(file));
    const twice = wanted.find((file) => !fresh.includes(file));
    if (twice) this.#note("note.twice", { name: isolated(twice.name) });
    return fresh.length ? this.uploader.add(fresh) : [];
  }

  /** Take files that have arrived out of the list, once nothing is under way; they are not deleted. */
  dismiss(uids) {
    if (this.items.some(({ state }) => !isSettled(state))) return;
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
    this.#left.look();
  }

  disconnectedCallback() {
    this.#listening.abort();
    this.#gatherer.stop();
    // Who moves an element takes it away and puts it back at once.
    setTimeout(() => { if (!this.isConnected) this.#uploader?.pause(); });
  }

  attributeChangedCallback(name, before, now) {
    if (name === "csrf-token") this.#token?.set(now ?? "");
    if (name === "value") this.#restore(valueOf(this));
    if (this.#uploader) Object.assign(this.#uploader.options, limitsOf(this));
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
    const before = valueOf(this).map(({ uploadUid }) => uploadUid);
    for (const item of this.items) if (!before.includes(item.uploadUid)) this.#remove(item);
  }

  formStateRestoreCallback(state) {
    this.#restore(JSON.parse(state));
  }

  // ---- Making ----

  #makeUploader() {
    this.#token = new Token(this.endpoint, this.getAttribute("csrf-header") ?? "X-CSRFToken");
    if (this.getAttribute("csrf-token")) this.#token.set(this.getAttribute("csrf-token"));
    const uploader = new Uploader(this.endpoint, optionsOf(this, this.#token));
    const on = (type, act) => uploader.addEventListener(type, ({ detail }) => act(detail?.item));
    on("add", (item) => this.#onAdd(item));
    on("state", (item) => this.#onState(item));
    on("progress", (item) => this.#renderSoon(item));
    on("done", (item) => this.#onDone(item));
    on("error", (item) => this.#onError(item));
    on("remove", (item) => this.#drop(item));
    on("idle", () => this.#emit("idle"));
    return uploader;
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
    this.#left.follow(signal);
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
    this.#emit("add", item);
  }

  #onState(item) {
    this.#rows.get(item)?.render();
    if (item.state === "offline" || item.state === "retrying") this.#announcer.sayRarely(`say.${item.state}`);
    this.#settle();
  }

  #onDone(item) {
    this.#rows.get(item)?.render();
    const leisurely = this.items.some(({ state }) => !isSettled(state));
    this.#announcer.say("say.done", { name: item.name }, { leisurely });
    this.#settle();
    this.#emit("done", item);
  }

  #onError(item) {
    const { text } = explain(item.error ?? {}, this.#words, hintsOf(this, this.#words));
    this.#announcer.say("say.failed", { name: item.name, error: text });
    this.#settle();
    this.#emit("error", item);
  }

  // ---- The list ----

  #show(item) {
    const row = new Row(item, {
      words: () => this.#words,
      hints: () => hintsOf(this, this.#words),
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
    if (!focused) return;
    this.#renderOverall(); // for the input may have been out of sight
    (next ?? this.#frame.input).focus();
  }

  #drop(item) {
    const row = this.#rows.get(item);
    if (!row) return;
    row.close();
    this.#rows.delete(item);
    if (!this.#complaint) this.#frame.note("");
    this.#settle();
    this.#emit("remove", item);
    this.#left.look();
  }

  #restore(uploads) {
    for (const upload of uploads) {
      if (!this.value.includes(upload.uploadUid)) this.#show(new Arrived(upload));
    }
    if (this.#frame) this.#settle();
  }

  #pauseAll() {
    const { moving } = summaryOf(this.items);
    if (moving) this.uploader.pause();
    else this.uploader.resume();
    this.#announcer.say(moving ? "say.paused" : "say.resumed");
  }

  /** Delete what has arrived of an upload; what can't be deleted now is deleted by its expiry. */
  async #delete(uid) {
    const headers = { "X-Upload-Helper": "1", ...(await headersOf(this, this.#token)) };
    await fetch(this.uploader.urlOf(uid), { method: "DELETE", headers }).catch(() => null);
  }

  // ---- What was left unfinished ----

  #showLeft(uploads) {
    this.#frame.renderUnfinished(this.#words, uploads, (upload) => this.#discard(upload));
    this.#emit("pending");
  }

  async #discard(upload) {
    this.#frame.input.focus(); // The button vanishes.
    await this.#left.discard(upload);
    this.#announcer.say("say.deleted", { name: upload.name });
  }

  // ---- Rendering ----

  #reword() {
    this.#words = new Words(languageOf(this), parsed(this, "texts", {}));
    const { limit, types } = hintsOf(this, this.#words);
    const [multiple, folders] = [this.hasAttribute("multiple"), this.hasAttribute("folders")];
    this.#frame.reword(this.#words, { multiple, folders, types, size: limit, accept: this.getAttribute("accept") });
    this.#nameGroup();
    this.#settle();
    this.#left.show({ anew: true });
    for (const row of this.#rows.values()) row.render();
  }

  #nameGroup() {
    const labels = [...this.#internals.labels].map(({ textContent }) => textContent.trim()).join(" ");
    setAttribute(this.#frame.element, "aria-label", this.getAttribute("label") || labels || this.#words.text("files"));
  }

  #renderSoon(item) {
    if (!CHANGING.has(item.state)) return;
    this.#changed.add(item);
    this.#timer ||= setTimeout(() => {
      this.#timer = 0;
      for (const changed of this.#changed) this.#rows.get(changed)?.render();
      this.#changed.clear();
      this.#renderOverall();
    }, PAUSE);
  }

  #renderOverall() {
    const { speed = 0, secondsLeft = Infinity } = this.#uploader?.progress ?? {};
    this.#frame.renderOverall(this.#words, { ...summaryOf(this.items), speed, secondsLeft });
    this.#frame.list.hidden = !this.#rows.size;
    this.#frame.offer(this.hasAttribute("multiple") || !this.#rows.size);
  }

  /** Bring in step what depends on the states of all files, once for all that happens at the same time. */
  #settle() {
    if (this.#settling) return;
    this.#settling = true;
    queueMicrotask(() => {
      this.#settling = false;
      this.#settleNow();
    });
  }

  #settleNow() {
    this.#renderOverall();
    this.#left.show();
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
    const [flag, key, count] = complaintOf(this.items, this.hasAttribute("required")) ?? [];
    // The browser's message has to point to something that can be seen.
    const anchor = this.#frame.input.getClientRects().length ? this.#frame.input : this.#frame.element;
    if (flag) this.#internals.setValidity({ [flag]: true }, this.#words.text(key, { count }), anchor);
    else this.#internals.setValidity({});
    if (this.#complaint) this.#frame.note((this.#complaint = this.validationMessage));
  }

  #emit(what, item) {
    const { uploadUid, name: fileName, size: totalSize, error } = item ?? {};
    const detail = item ? { item, uploadUid, fileName, totalSize, error } : {};
    this.dispatchEvent(new CustomEvent(`upload-${what}`, { bubbles: true, composed: true, detail }));
  }
}

const described = ({ uploadUid, name, size }) => ({ uploadUid, fileName: name, totalSize: size });

// A page may have the script twice, under two URLs.
if (!customElements.get("upload-helper")) customElements.define("upload-helper", UploadHelperElement);
