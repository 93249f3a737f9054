// One file on its way to the server.

import { Backoff, Meter } from "./pace.js";
import { Missing, planOf } from "./pieces.js";
import { UploadError } from "./request.js";

const MOST_MISMATCHES = 5;
const LOOK_AFTER = 5; // seconds of sending after which the size of the chunks is looked at, if none has arrived yet
const SLOWEST_CHUNK = 20; // seconds
const SLOW = new UploadError("too_slow", "The chunks are too large for this connection.", { permanent: false });
// Errors after which the same upload can't go on, only another one of the same file.
const LOST = new Set(["not_found", "chunk_conflict", "invalid_request", "length_mismatch"]);
const GONE = { status: 404, remedy: "It has expired, or somebody has deleted it. Try again to send it from the start." };
const STANDING = new Set(["done", "failed", "cancelled", "paused"]);

/**
 * A file that an Uploader sends, in one of the states `waiting`, `checking` (asking what the server has already),
 * `uploading`, `paused`, `offline`, `retrying` (waits for the next try), `finishing`, `done`, `failed`, `cancelled`.
 *
 * Fires `state`, `progress`, `done`, `error` and `remove`, as its uploader does.
 */
export class UploadItem extends EventTarget {
  #context;
  #key;
  #entry;
  #missing = null;
  #flying = new Map(); // chunk number → bytes sent so far
  #acknowledged = 0;
  #moved = 0; // bytes sent in all, those included that had to be sent again
  #meter = new Meter();
  #backoff = new Backoff();
  #stop = null;
  #trial = null; // of the size of the chunks: since when they are sent, as long as none has arrived
  #futile = 0; // how often the link broke before a chunk had arrived
  #promise = Promise.withResolvers();

  /** An id that is unique on the page. */
  id;
  /** @type {File} */
  file;
  /** The folder it was in, as `photos/2024`; empty for a file that was picked by itself. */
  path;
  state = "waiting";
  /** The uid on the server; empty until the first chunk is there. */
  uploadUid = "";
  /** @type {?UploadError} why it failed, or what it is waiting for to pass */
  error = null;

  constructor(file, id, key, path, context) {
    super();
    Object.assign(this, { file, id, path });
    this.#context = context;
    this.#key = key;
    this.#entry = context.memory.find(key);
    this.#promise.promise.catch(() => {}); // whoever does not wait for it hears of errors by events
  }

  get name() { return this.file.name; }
  get size() { return this.file.size; }
  /** What finds the upload again on the server; empty before it has begun. */
  get identifier() { return this.#entry?.identifier ?? ""; }
  /** The key under which this browser remembers the upload. */
  get key() { return this.#key; }

  /** Bytes that have arrived or are on their way. */
  get bytes() {
    return Math.min(this.size, [...this.#flying.values()].reduce((sum, count) => sum + count, this.#acknowledged));
  }

  /** Bytes per second, smoothed; 0 while it stands. */
  get speed() {
    return this.state === "uploading" ? this.#meter.speed : 0;
  }

  /** Seconds until all is sent, or null while nobody can tell. */
  get secondsLeft() {
    return this.speed > 0 ? (this.size - this.bytes) / this.speed : null;
  }

  /** Whether it is on its way, or will be by itself. */
  get active() { return this.#stop !== null; }

  /**
   * Resolves with `{uploadUid, url, fileName, totalSize}`, rejects with an UploadError; retry() makes a new one.
   * @type {Promise<{uploadUid: string, url: string, fileName: string, totalSize: number}>}
   */
  get done() { return this.#promise.promise; }

  /** Send it, as soon as it is its turn. */
  start() {
    if (this.#stop || STANDING.has(this.state)) return;
    this.#run();
  }

  /** Stop sending; what the server has stays there. */
  pause() {
    if (STANDING.has(this.state)) return;
    this.#halt();
    this.#setState("paused");
  }

  /** Go on after pause(). */
  resume() {
    if (this.state === "paused") this.#run();
  }

  /** Try again: at once what waits for its next try, from where it was what has failed. */
  retry() {
    if (this.state === "failed") {
      this.#promise = Promise.withResolvers();
      this.#promise.promise.catch(() => {});
      this.#backoff = new Backoff();
      this.#context.backoff.succeeded();
      this.#run();
    } else if (this.active) {
      this.#backoff.wake();
      this.#context.backoff.wake();
    }
  }

  /** Stop, and delete it on the server, finished or not; resolves when that is done, or can't be done now. */
  async cancel() {
    if (this.state === "cancelled") return;
    this.#halt();
    this.#promise.reject(new UploadError("cancelled", "The upload was cancelled."));
    this.error = null;
    this.#setState("cancelled");
    this.#emit("remove");
    if (this.#entry || this.uploadUid) await this.#context.discard(this.#key, this.#entry, this.uploadUid);
  }

  /** Fail before anything is sent. */
  refuse(error) {
    this.#fail(error);
  }

  /** Measure, and tell of the progress of the last `seconds`; return the bytes that moved. */
  tick(seconds) {
    const moved = this.#moved;
    this.#moved = 0;
    this.#meter.add(moved, seconds);
    this.#judge();
    this.#emit("progress");
    return moved;
  }

  async #run() {
    const stop = (this.#stop = new AbortController());
    const { signal } = stop;
    this.error = null;
    this.#setState("waiting");
    try {
      let first = true;
      for (let result = null; !result; first = false) {
        try {
          result = await this.#check(first, signal);
          if (!result) await this.#sendMissing(signal);
        } catch (error) {
          await this.#recover(error, signal);
        }
      }
    } catch (error) {
      if (this.#stop === stop) this.#fail(error);
    }
  }

  // ---- what is there ----

  /** Find out what is missing; return the result if nothing is. */
  async #check(first, signal) {
    if (first) this.uploadUid = "";
    if (!this.#entry) return this.#begin();
    if (this.#entry.chunkCount === 1 && this.#acknowledged === this.size && this.uploadUid) {
      // The server finishes a file of one chunk before it acknowledges it.
      return this.#succeed({ ...this.#entry, uploadUid: this.uploadUid });
    }
    const status = await this.#ask(first, signal);
    if (!status) return this.#sendAll();
    this.uploadUid = status.uploadUid;
    this.#acknowledged = status.receivedBytes;
    this.#missing = new Missing(status.missing);
    return status.state === "finished" ? this.#succeed(status) : null;
  }

  async #ask(first, signal) {
    const { gate, find } = this.#context;
    const release = await gate.take(this.id, signal);
    try {
      if (first) this.#setState("checking");
      return await find(this.#entry, signal);
    } finally {
      release();
    }
  }

  #begin() {
    const { pace, memory } = this.#context;
    this.#entry = planOf(this.file, this.path, pace.chunkSizeFor(this.size));
    memory.keep(this.#key, this.#entry);
    return this.#sendAll();
  }

  /** Begin what the server does not know; if it has known it, somebody has deleted it. */
  #sendAll() {
    if (this.uploadUid) throw new UploadError("not_found", "The upload is not on the server any more.", GONE);
    this.#acknowledged = 0;
    this.#missing = new Missing([[0, this.#entry.chunkCount - 1]]);
    return null;
  }

  // ---- sending ----

  /** Send what is missing, several chunks at a time; after a failure, only what is under way already. */
  async #sendMissing(signal) {
    const { gate, pace } = this.#context;
    const [calm, cut] = [new AbortController(), new AbortController()];
    const waiting = AbortSignal.any([signal, calm.signal]);
    const sending = AbortSignal.any([signal, cut.signal]);
    let failure = null;
    const fail = (error) => {
      if (!failure || error.permanent) failure = error;
      calm.abort();
      if (error.permanent || error === SLOW) cut.abort();
    };
    const lane = async () => {
      while (!failure && this.#missing.left) {
        const release = await gate.take(this.id, waiting);
        try {
          if (!failure && this.#missing.left) await this.#sendChunk(this.#missing.take(), sending);
        } finally {
          release();
        }
      }
    };
    this.#trial = { begun: Date.now(), moved: 0, fail };
    await Promise.all(Array.from({ length: Math.min(pace.most, this.#missing.left) }, () => lane().catch(fail)));
    if (failure) throw failure;
  }

  async #sendChunk(number, signal) {
    const { sendChunk, pace } = this.#context;
    const { chunkSize } = this.#entry;
    const content = this.file.slice(number * chunkSize, (number + 1) * chunkSize);
    const flying = this.#flying; // that of this run, also when it has ended meanwhile
    const onProgress = (loaded) => this.#progress(flying, number, Math.min(loaded, content.size));
    this.error = null;
    this.#setState("uploading");
    try {
      this.uploadUid = await sendChunk(this.#entry, number, content, { uploadUid: this.uploadUid, onProgress, signal });
      onProgress(content.size);
      this.#acknowledged += content.size;
      if (content.size === chunkSize) this.#fits();
      flying.delete(number);
      this.#backoff.succeeded();
      pace.arrived(content.size);
    } finally {
      flying.delete(number);
    }
  }

  #progress(flying, number, loaded) {
    const moved = Math.max(0, loaded - (flying.get(number) ?? 0));
    this.#moved += moved;
    if (this.#trial) this.#trial.moved += moved;
    flying.set(number, loaded);
    if (this.state === "uploading" && this.bytes === this.size && this.size) this.#setState("finishing");
  }

  /** Take in that a chunk has arrived, so the size is one that can be kept. */
  #fits() {
    this.#trial = null;
    this.#futile = 0;
  }

  /** Whether less than a chunk has arrived, so that nothing much is lost by beginning anew with smaller ones. */
  get #early() {
    return this.#acknowledged < this.#entry.chunkSize;
  }

  /** Give up chunks of a size that this link would take too long for. */
  #judge() {
    const trial = this.#trial;
    if (!trial || !this.#early || !this.#flying.size) return;
    const seconds = (Date.now() - trial.begun) / 1000;
    const { pace } = this.#context;
    const speed = trial.moved / seconds;
    if (seconds < LOOK_AFTER || !speed || (this.#flying.size * this.#entry.chunkSize) / speed < SLOWEST_CHUNK) return;
    this.#trial = null;
    if (!pace.slow(this.#entry.chunkSize, speed)) return;
    trial.fail(SLOW);
  }

  // ---- failures ----

  /** Wait until it makes sense to try again; throw what does not pass. */
  async #recover(error, signal) {
    if (!(error instanceof UploadError)) throw error;
    if (error === SLOW) return this.#discard();
    if (error.status === 413 && error.code !== "too_large" && this.#cutSmaller()) return;
    if (error.permanent) throw error;
    if (!error.ofServer && this.#trial?.moved) this.#futile += 1;
    this.#trial = null;
    const { backoff: common, retries } = this.#context;
    const backoff = error.ofServer ? this.#backoff : common;
    if (error.ofServer) error.retryAfter = backoff.failed(error);
    const hopeless = error.code === "checksum_mismatch" && backoff.tries >= MOST_MISMATCHES;
    if (hopeless || backoff.tries > retries) throw error;
    this.error = error;
    this.#setState(error.status === 0 && navigator.onLine === false ? "offline" : "retrying");
    await backoff.over(signal);
    if (this.#futile > 1 && this.#early) this.#cutSmaller();
  }

  /** Begin anew with smaller chunks: a server in between does not take large ones, or the link breaks too often. */
  #cutSmaller() {
    if (!this.#entry || !this.#context.pace.shrink(this.#entry.chunkSize)) return false;
    this.#discard();
    return true;
  }

  /** Leave what was begun to the server to delete, to begin anew. */
  #discard() {
    this.#context.discard(this.#key, this.#entry, this.uploadUid);
    this.#entry = null;
    this.uploadUid = "";
    this.#futile = 0;
  }

  #fail(error) {
    this.#halt();
    this.error = error instanceof UploadError ? error : new UploadError("refused", String(error?.message ?? error));
    this.error.permanent = true;
    if (LOST.has(this.error.code)) this.#forget();
    this.#promise.reject(this.error);
    this.#setState("failed");
    this.#emit("error");
  }

  #succeed({ uploadUid, fileName, totalSize }) {
    this.#halt();
    this.#forget();
    this.uploadUid = uploadUid;
    this.#acknowledged = this.size;
    this.error = null;
    const result = { uploadUid, url: this.#context.urlOf(uploadUid), fileName, totalSize };
    this.#promise.resolve(result);
    this.#setState("done");
    this.#emit("done");
    return result;
  }

  #forget() {
    this.#context.memory.forget(this.#key);
    this.#entry = null;
  }

  #halt() {
    const stop = this.#stop;
    this.#stop = null;
    this.#flying = new Map();
    stop?.abort();
  }

  #setState(state) {
    if (this.state === state) return;
    this.state = state;
    this.#emit("state");
  }

  #emit(type) {
    this.dispatchEvent(new CustomEvent(type, { detail: { item: this } }));
    this.#context.emit(type, this);
  }
}
