// Sends files to the blueprint in chunks: for programs. <upload-helper> in upload-helper.js is the widget on top of it.

import { unlessAborted } from "./abort.js";
import { Awake, claimed } from "./awake.js";
import { Hasher, checkReadable, unreadable } from "./digest.js";
import { filesOf } from "./files.js";
import { Memory, browserStorage } from "./memory.js";
import { Backoff, Gate, Meter, Pace, Stopwatch } from "./pace.js";
import { PATIENCE, UploadError, request } from "./request.js";
import { UploadItem } from "./upload-item.js";

export { filesOf, UploadError, UploadItem };

const TICK = 200; // milliseconds between two `progress` events of a file
const LATE = 2000; // milliseconds that the server may need to see that a request was aborted
const ASIDE = 2; // requests at a time that no file waits for
const STALE = 7 * 24 * 3600 * 1000; // milliseconds after which what the server does not know is forgotten
const OWN_HEADERS = { Accept: "application/json", "X-Upload-Helper": "1" };
// What applications answer to a token that has expired.
const TOKEN_REFUSED = [400, 403, 419];

/**
 * @typedef {object} Options
 * @property {?number} [parallel] chunks at a time; null begins with 3 and adapts to the link
 * @property {?number} [chunkSize] bytes of a chunk; null adapts to the link, from 256 KiB to 16 MiB
 * @property {boolean} [checksum] send the SHA-256 of each chunk, where the browser has it: not on plain HTTP
 * @property {object|function} [headers] further headers of each request, or a function that returns or promises them;
 *   it is called for every request, and with the UploadError as argument when the headers were perhaps refused
 * @property {string|function} [csrfToken] goes into X-CSRFToken, as Flask-WTF wants it; may be a function like headers
 * @property {number} [retries] tries in a row without success, after which a file fails; endless by default
 * @property {boolean} [autoStart] begin when files are added; else start() does
 * @property {?Storage} [storage] where it is kept what was begun, to go on after a reload; null for nowhere
 * @property {?number} [maxFileSize] bytes; larger files fail at once
 * @property {string} [accept] kinds of files, written as in `<input accept>`; others fail at once
 * @property {boolean} [guard] ask before the page is left while something is under way
 * @property {boolean} [wakeLock] keep the screen on, and so the machine awake, while something is under way
 * @property {boolean} [withCredentials] send cookies to an endpoint on another origin
 */

/**
 * Sends files to an endpoint, several chunks at a time, and goes on where it was after whatever has happened.
 *
 * Fires `add`, `state`, `progress`, `done`, `error`, `remove` with `detail.item`, and `idle` when nothing is left.
 */
export class Uploader extends EventTarget {
  #url;
  #items = [];
  #lastId = 0;
  #context;
  #meter = new Meter();
  #backoff = new Backoff();
  #memory;
  #pace;
  #timer = null;
  #ticked = 0;
  #idle = true;
  #watching = false;
  #aside = new Gate(() => ASIDE, new Backoff());
  #awake = new Awake();
  #hasher = new Hasher();

  /**
   * @param {string} endpoint the URL of the blueprint, as `/uploads`; it may be relative, and have a query
   * @param {Options} [options]
   */
  constructor(endpoint, options = {}) {
    super();
    // What it is relative to may change when a page changes its address.
    this.#url = new URL(endpoint, globalThis.document?.baseURI ?? globalThis.location.href);
    this.#url.hash = "";
    this.#url.pathname = this.#url.pathname.replace(/\/+$/, "");
    this.options = { ...Uploader.defaults, ...options };
    const { parallel, chunkSize, storage = browserStorage(), retries } = this.options;
    this.#memory = new Memory(storage, this.#url.href);
    this.#pace = new Pace({ parallel, chunkSize, speed: this.#memory.speed });
    this.#context = {
      pace: this.#pace, memory: this.#memory, backoff: this.#backoff, retries,
      gate: new Gate(() => this.#pace.parallel, this.#backoff),
      find: (entry, signal) => this.#find(entry, signal),
      sendChunk: (...what) => this.#sendChunk(...what),
      discard: (...what) => this.#discard(...what),
      objection: (file) => this.#objection(file),
      urlOf: (uid) => this.urlOf(uid),
      emit: (type, item) => this.#emit(type, item),
    };
  }

  /** @type {Options} */
  static defaults = {
    parallel: null, chunkSize: null, checksum: true, headers: {}, csrfToken: "", retries: Infinity, autoStart: true,
    storage: undefined, maxFileSize: null, accept: "", guard: true, wakeLock: false, withCredentials: false,
  };

  /** The files that were added and not cancelled, in their order. @type {UploadItem[]} */
  get items() { return [...this.#items]; }

  /** Return the URL of an upload; without its origin where that is the page's. */
  urlOf(uid) {
    const { origin, pathname, search, href } = this.#address(uid);
    return origin === globalThis.location.origin ? pathname + search : href;
  }

  /** Whether something is under way, or will be by itself. */
  get busy() { return this.#items.some(({ active }) => active); }

  /** All files together: bytes sent and to send, bytes per second, seconds left or null. Failed ones don't count. */
  get progress() {
    const items = this.#items.filter(({ state }) => state !== "failed");
    const sum = (name) => items.reduce((total, item) => total + item[name], 0);
    const [bytes, total] = [sum("bytes"), sum("size")];
    const speed = items.some(({ state }) => state === "uploading") ? this.#meter.speed : 0;
    return { bytes, total, speed, secondsLeft: speed > 0 ? (total - bytes) / speed : null };
  }

  /**
   * Add files, and begin to send them unless `autoStart` is false. What was begun before goes on where it was.
   * @param {Iterable<File>} files
   * @returns {UploadItem[]}
   */
  add(files) {
    const items = Array.from(files);
    // One that has failed leaves its place to the same file when that is picked again.
    const keys = new Set(this.#items.filter(({ state }) => state !== "failed").map(({ key }) => key));
    for (const [index, file] of items.entries()) {
      const item = new UploadItem(file, ++this.#lastId, (key) => keys.has(key), this.#context);
      keys.add(item.key);
      items[index] = item;
      this.#items.push(item);
      this.#emit("add", item);
    }
    for (const item of items) {
      const error = this.#objection(item.file);
      if (error) item.refuse(error);
      else if (this.options.autoStart) item.start();
    }
    return items;
  }

  /** Begin with the files that wait for it. */
  start() { for (const item of this.items) item.start(); }
  pause() { for (const item of this.items) item.pause(); }
  resume() { for (const item of this.items) item.resume(); }
  /** Cancel all, and delete them on the server; those too that are done. */
  async cancel() { await Promise.all(this.items.map((item) => item.cancel())); }

  /**
   * Return what this browser has begun earlier, no page is at, and the server still has. Adding the same file again
   * goes on with it.
   * @returns {Promise<{identifier: string, uploadUid: string, name: string, path: string, size: number,
   *   received: number}[]>}
   */
  async unfinished() {
    const held = new Set([...this.#items.map(({ identifier }) => identifier), ...(await claimed())]);
    const entries = this.#memory.all().filter(([, { identifier }]) => !held.has(identifier));
    const found = await Promise.all(entries.map(([key, entry]) => this.#left(key, entry)));
    return found.filter(Boolean);
  }

  /** Delete on the server one of those that unfinished() has returned, and forget it. */
  async discard(identifier) {
    const [key, entry] = this.#memory.all().find(([, other]) => other.identifier === identifier) ?? [];
    if (entry) await this.#discard(key, entry);
  }

  // ---- files ----

  #objection({ name, type, size, unreadable: lost }) {
    const { maxFileSize, accept } = this.options;
    if (lost) return unreadable();
    if (maxFileSize !== null && size > maxFileSize) {
      const text = `The file has ${size} bytes; ${maxFileSize} are allowed.`;
      return new UploadError("too_large", text, { status: 413, remedy: "Choose a smaller file." });
    }
    if (accepts(accept, name, type)) return null;
    const text = `Files of this kind are not taken; these are: ${accept}.`;
    return new UploadError("unsupported_type", text, { status: 415, remedy: "Choose another file." });
  }

  async #left(key, entry) {
    if (entry.cancelled) return this.#discard(key, entry).then(() => null);
    // What can't be asked for may be there still.
    const status = await this.#alongside(() => this.#find(entry)).catch(() => undefined);
    if (status === null && Date.now() - entry.begun > STALE) this.#memory.forget(key);
    if (!status) return null;
    const { identifier, fileName: name, path, totalSize: size } = entry;
    return { identifier, uploadUid: status.uploadUid, name, path, size, received: status.receivedBytes };
  }

  // ---- requests ----

  /** Return the status of an upload, or null if the server does not know it. */
  async #find({ identifier, fileName, totalSize, chunkCount }, signal) {
    try {
      const address = this.#address("", { identifier, fileName, totalSize, chunkCount });
      return checked(await this.#ask("GET", address, { signal }));
    } catch (error) {
      if (error.code === "not_found") return null;
      throw error;
    }
  }

  /** Send a chunk; return the uid of its upload. */
  async #sendChunk(entry, chunkNumber, content, { uploadUid, onProgress, signal }) {
    const { identifier, fileName, totalSize, chunkCount } = entry;
    const fields = { fileName, totalSize, chunkCount, chunkNumber, identifier, uploadUid };
    if (this.options.checksum && Hasher.available) {
      fields.checksum = await unlessAborted(signal, this.#hasher.sha256(content));
    }
    try {
      const options = { body: content, type: "application/octet-stream", onProgress, signal };
      return checked(await this.#ask("POST", this.#address("", fields), options)).uploadUid;
    } catch (error) {
      // To the browser, a file that can't be read looks like a server that can't be reached.
      if (error.code === "no_connection") await checkReadable(content);
      throw error;
    }
  }

  /**
   * Delete an upload on the server and forget it; what can't be deleted now is when somebody asks for what is left.
   * `late`: a chunk that was just aborted may still arrive, and begin the upload once more.
   */
  async #discard(key, entry, { uploadUid = "", late = false } = {}) {
    const note = entry && (entry.cancelled ? key : this.#memory.trash(key, entry));
    try {
      await this.#delete(entry, uploadUid);
      if (late) {
        await new Promise((resolve) => setTimeout(resolve, LATE));
        await this.#delete(entry);
      }
    } catch (error) {
      // What the server does not understand it will not understand later.
      if (error.code !== "invalid_request") return;
    }
    if (note) this.#memory.forget(note);
  }

  async #delete(entry, uploadUid = "") {
    try {
      const uid = uploadUid || (await this.#alongside(() => this.#find(entry)))?.uploadUid;
      if (uid) await this.#alongside(() => this.#ask("DELETE", this.#address(uid), {}));
    } catch (error) {
      if (error.code !== "not_found") throw error;
    }
  }

  /** Do something that no file waits for, when it is its turn: there may be thousands of it. */
  async #alongside(act) {
    const release = await this.#aside.take(0, new AbortController().signal);
    try {
      return await act();
    } finally {
      release();
    }
  }

  #address(uid, fields = {}) {
    const url = new URL(this.#url);
    if (uid) url.pathname = `${url.pathname.replace(/\/$/, "")}/${uid}`;
    for (const [name, value] of Object.entries(fields)) if (value !== "") url.searchParams.set(name, value);
    return url;
  }

  async #ask(method, { href }, { body, type, onProgress, signal }) {
    const patience = PATIENCE * 2 ** Math.min(3, this.#backoff.tries);
    const send = (headers) => {
      const all = { ...OWN_HEADERS, ...(type && { "Content-Type": type }), ...headers };
      const { withCredentials } = this.options;
      return request(method, href, { body, headers: all, onProgress, signal, patience, withCredentials });
    };
    const begun = new Stopwatch();
    try {
      const headers = await unlessAborted(signal, this.#headers());
      const answer = await send(headers).catch(async (error) => {
        if (error.ofServer || !TOKEN_REFUSED.includes(error.status)) throw error;
        const others = await unlessAborted(signal, this.#headers(error));
        if (JSON.stringify(others) === JSON.stringify(headers)) throw error;
        return send(others);
      });
      this.#backoff.succeeded();
      return answer;
    } catch (error) {
      if (error instanceof UploadError) this.#failed(error, begun);
      throw error;
    }
  }

  /** Let everybody wait, where it is not the upload server that has answered. */
  #failed(error, begun) {
    error.begun = begun;
    if (error.ofServer || error.permanent) return;
    this.#pace.broke();
    error.retryAfter = this.#backoff.failed(error);
  }

  async #headers(refusal) {
    const { headers, csrfToken } = this.options;
    const given = (value) => (typeof value === "function" ? value(refusal) : value);
    try {
      const [own, token] = [await given(headers), await given(csrfToken)];
      return { ...(token && { "X-CSRFToken": token }), ...(own instanceof Headers ? Object.fromEntries(own) : own) };
    } catch (cause) {
      if (cause instanceof UploadError) throw cause;
      // They may have to be asked for, and there may be no connection.
      const text = `The page has no headers for the request: ${cause?.message ?? cause}`;
      throw Object.assign(new UploadError("no_headers", text, { permanent: false }), { cause });
    }
  }

  // ---- what goes on around ----

  #emit(type, item) {
    if (type === "remove") this.#items = this.#items.filter((other) => other !== item);
    this.dispatchEvent(new CustomEvent(type, { detail: { item } }));
    if (type === "add") this.#idle = false;
    // When all events of the change are out.
    if (type !== "state" || this.#watching) return;
    this.#watching = true;
    queueMicrotask(() => {
      this.#watching = false;
      this.#watch();
    });
  }

  /** Tick, listen and guard as long as something is under way, and not longer. */
  #watch() {
    const { busy } = this;
    const paused = this.#items.some(({ state }) => state === "paused");
    if (busy && !this.#timer) this.#wake();
    if (!busy && this.#timer) this.#rest();
    if (this.options.guard) (busy || paused ? addEventListener : removeEventListener)("beforeunload", this.#guard);
    const left = busy || paused || this.#items.some(({ state }) => state === "waiting");
    if (!left && !this.#idle) this.dispatchEvent(new Event("idle"));
    this.#idle = !left;
  }

  #wake() {
    this.#ticked = performance.now();
    this.#timer = setInterval(this.#tick, TICK);
    addEventListener("online", this.#online);
    if (this.options.wakeLock) this.#awake.hold();
  }

  #rest() {
    clearInterval(this.#timer);
    this.#timer = null;
    removeEventListener("online", this.#online);
    this.#awake.release();
    this.#hasher.rest();
    this.#pace.rest();
    if (this.#pace.speed) this.#memory.speed = this.#pace.speed;
  }

  #guard = (event) => {
    event.preventDefault();
    event.returnValue = true; // for browsers of early 2023
  };

  #tick = () => {
    const now = performance.now();
    const seconds = Math.max(0.001, (now - this.#ticked) / 1000);
    this.#ticked = now;
    const moved = this.#items.reduce((sum, item) => sum + (item.active ? item.tick(seconds) : 0), 0);
    this.#meter.add(moved, seconds);
  };

  #online = () => {
    if (!this.#backoff.asked) this.#backoff.wake();
  };
}

/** Return an answer that is one; a page to sign in, say, comes with 200 as well. */
function checked(answer) {
  if (typeof answer?.uploadUid === "string") return answer;
  const remedy = "Perhaps you have to sign in again.";
  throw new UploadError("unexpected_answer", "Somebody else has answered instead of the upload server.", { remedy });
}

/** Say whether a file is of one of the kinds that are written as in `<input accept>`. */
function accepts(kinds, name, type) {
  const wanted = kinds.toLowerCase().split(",").map((kind) => kind.trim()).filter(Boolean);
  const fits = (kind) => {
    if (kind.startsWith(".")) return name.toLowerCase().endsWith(kind);
    if (kind === "*/*") return true;
    return kind.endsWith("/*") ? type.startsWith(kind.slice(0, -1)) : type.toLowerCase() === kind;
  };
  return !wanted.length || wanted.some(fits);
}
