// One file on its way to the server.

import { childOf } from "./abort.js";
import { Begun } from "./begun.js";
import { Backoff, Meter } from "./pace.js";
import { Missing } from "./pieces.js";
import { UploadError } from "./request.js";
import { Trial } from "./trial.js";

const MOST_MISMATCHES = 5;
const SLOW = new UploadError("too_slow", "The chunks are too large for this connection.", { permanent: false });
// Errors after which the same upload can't go on, only another one of the same file.
// Not `not_found`: to somebody who has signed out, the server says that too.
const LOST = new Set(["chunk_conflict", "invalid_request", "length_mismatch"]);
const GONE = { status: 404, remedy: "If you are signed out, sign in. Then try again: what was deleted comes anew." };
const STANDING = new Set(["done", "failed", "cancelled", "paused"]);

/**
 * A file that an Uploader sends, in one of the states `waiting`, `checking` (asking what the server has already),
 * `uploading`, `paused`, `offline`, `retrying` (waits for the next try), `finishing`, `done`, `failed`, `cancelled`.
 *
 * Fires `state`, `progress`, `done`, `error` and `remove`, as its uploader does.
 */
export class UploadItem extends EventTarget {
  #context;
  #begun;
  #largest = Infinity; // bytes of a chunk that gets through
  #place = null; // gives back the place in the gate that the first chunk of a new upload has already
  #missing = null;
  #flying = new Map(); // chunk number → bytes sent so far
  #acknowledged = 0;
  #had = -1; // bytes that the server had when it was asked last
  #sent = 0; // chunks that it has acknowledged since
  #stuck = false; // whether it did not have what it has acknowledged
  #moved = 0; // bytes sent in all, those included that had to be sent again
  #meter = new Meter();
  #trial = null;
  #backoff = new Backoff();
  #stop = null;
  #promise;

  /** A number that is unique in its uploader. */
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

  /** @param {(key: string) => boolean} isTaken whether another file of the uploader goes by a key */
  constructor(file, id, isTaken, context) {
    super();
    const path = (file.webkitRelativePath || "").split("/").slice(0, -1).join("/");
    Object.assign(this, { file, id, path });
    this.#context = context;
    this.#begun = new Begun(file, path, isTaken, context);
    this.#promise = promise();
  }

  get name() { return this.file.name; }
  get size() { return this.file.size; }
  /** What finds the upload again on the server; empty before it has begun. */
  get identifier() { return this.#plan?.identifier ?? ""; }
  /** The key under which this browser remembers the upload. */
  get key() { return this.#begun.key; }
  get #plan() { return this.#begun.plan; }

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
    if (!this.active && !STANDING.has(this.state)) this.#run();
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
    for (const backoff of [this.#context.backoff, this.#backoff]) {
      backoff.succeeded();
      backoff.wake();
    }
    if (this.state !== "failed") return;
    this.#promise = promise();
    const objection = this.#context.objection(this.file);
    if (objection) this.#fail(objection);
    else this.#run();
  }

  /** Stop, and delete it on the server, finished or not; resolves when that is done, or can't be done now. */
  async cancel() {
    if (this.state === "cancelled") return;
    this.#halt();
    this.#promise.reject(new UploadError("cancelled", "The upload was cancelled."));
    this.error = null;
    this.#setState("cancelled");
    this.#emit("remove");
    await this.#begun.discard(this.uploadUid);
  }

  /** Fail before anything is sent. */
  refuse(error) {
    if (this.state === "waiting") this.#fail(error);
  }

  /** Measure, and tell of the progress of the last `seconds`; return the bytes that moved. */
  tick(seconds) {
    const moved = this.#moved;
    this.#moved = 0;
    if (this.state === "uploading" || moved) {
      this.#meter.add(moved, seconds);
      if (this.#flying.size && this.#trial.tooSlow(this.#flying.size, seconds)) this.#cut(SLOW);
      this.#emit("progress");
    }
    return moved;
  }

  async #run() {
    const stop = (this.#stop = new AbortController());
    this.error = null;
    this.#setState("waiting");
    try {
      this.uploadUid = "";
      this.#had = -1;
      for (let first = true; !(await this.#round(first, stop.signal)); first = false);
    } catch (error) {
      if (this.#stop === stop) this.#fail(error);
    }
  }

  /** Send what is missing once, or wait after a failure; return whether all is there. */
  async #round(first, signal) {
    try {
      if (!this.#plan || (first && !(await this.#begun.claim()))) await this.#begin(signal);
      else if (await this.#check(first, signal)) return true;
      await this.#sendMissing(signal);
      signal.throwIfAborted();
      // The server finishes a file of one chunk before it acknowledges it; of others, it is asked what it has.
      if (this.#plan.chunkCount === 1) this.#succeed({ ...this.#plan, uploadUid: this.uploadUid });
      return this.state === "done";
    } catch (error) {
      await this.#recover(error, signal);
    }
    return false;
  }

  // ---- what is there ----

  /** Plan a new upload when it is its turn, for by then the link is better known. */
  async #begin(signal) {
    const { gate, pace } = this.#context;
    const place = await gate.take(this.id, signal);
    if (signal.aborted) place();
    signal.throwIfAborted();
    this.#place = place;
    [this.#had, this.#sent] = [-1, 0];
    this.#begun.begin(pace.chunkSizeFor(this.size, this.#largest));
    this.#all();
  }

  /** Ask what is missing; return whether nothing is. */
  async #check(first, signal) {
    const status = await this.#ask(first, signal);
    signal.throwIfAborted();
    if (!status) this.#all();
    else if (status.state === "finished") this.#succeed(status);
    else this.#some(status);
    return status?.state === "finished";
  }

  async #ask(first, signal) {
    const { gate, find } = this.#context;
    const release = await gate.take(this.id, signal);
    try {
      if (first) this.#setState("checking");
      return await find(this.#plan, signal);
    } finally {
      release();
    }
  }

  /** Send all; if the server has known the upload, somebody has deleted it. */
  #all() {
    if (this.uploadUid) throw new UploadError("not_found", "The upload is not on the server any more.", GONE);
    this.#some({ uploadUid: "", receivedBytes: 0, missing: [[0, this.#plan.chunkCount - 1]] });
  }

  #some({ uploadUid, receivedBytes, missing }) {
    const { chunkSize, chunkCount } = this.#plan;
    this.uploadUid = uploadUid;
    this.#acknowledged = receivedBytes;
    this.#compare(receivedBytes);
    // A server that died before it had finished the file finishes it with any chunk that comes again.
    this.#missing = new Missing(missing.length ? missing : [[chunkCount - 1, chunkCount - 1]]);
    if (this.#trial?.size !== chunkSize) this.#trial = new Trial(this.#plan, this.#context.pace);
    this.#trial.arrived(receivedBytes);
  }

  /** Throw if the server has acknowledged what it does not have, or does not finish what it has. */
  #compare(receivedBytes) {
    const more = receivedBytes > this.#had;
    this.#stuck = !more && (this.#stuck || this.#sent > 0);
    const lost = !more && this.#sent > 0;
    [this.#had, this.#sent] = [receivedBytes, 0];
    if (lost) throw new UploadError("incomplete", "The server does not finish the file.", { permanent: false });
  }

  // ---- sending ----

  /** Send what is missing, several chunks at a time; after a failure, only what is under way already. */
  async #sendMissing(signal) {
    const [calm, cut] = [childOf(signal), childOf(signal)];
    let failure = null;
    this.#cut = (error) => {
      if (!failure || error.permanent) failure = error;
      calm.abort();
      if (error.permanent || error === SLOW) cut.abort();
    };
    const lane = async () => {
      while (!failure && this.#missing.left) await this.#sendNext(calm.signal, cut.signal);
    };
    const lanes = Math.min(this.#context.pace.most, this.#missing.left);
    this.#trial.begin();
    await Promise.all(Array.from({ length: lanes }, () => lane().catch(this.#cut)));
    for (const part of [calm, cut]) part.abort();
    if (failure) throw failure;
  }

  /** Ends the sending with an error. */
  #cut = () => {};

  async #sendNext(waiting, sending) {
    const place = this.#place ?? (await this.#context.gate.take(this.id, waiting));
    this.#place = null;
    try {
      if (this.#missing.left && !waiting.aborted) await this.#sendChunk(this.#missing.take(), sending);
    } finally {
      place();
    }
  }

  async #sendChunk(number, signal) {
    const { pace } = this.#context;
    const { chunkSize } = this.#plan;
    const content = this.file.slice(number * chunkSize, (number + 1) * chunkSize);
    const flying = this.#flying; // that of this run, also when it has ended meanwhile
    const onProgress = (loaded) => this.#progress(flying, number, Math.min(loaded, content.size));
    this.error = null;
    this.#setState("uploading");
    try {
      const uploadUid = await this.#begun.send(number, content, { uploadUid: this.uploadUid, onProgress, signal });
      signal.throwIfAborted();
      this.uploadUid = uploadUid;
      onProgress(content.size);
      this.#acknowledged += content.size;
      this.#sent += 1;
      this.#trial.arrived(content.size);
      if (!this.#stuck) this.#backoff.succeeded();
      pace.arrived(content.size);
      pace.limit(this.#largest);
    } finally {
      flying.delete(number);
    }
  }

  #progress(flying, number, loaded) {
    const moved = Math.max(0, loaded - (flying.get(number) ?? 0));
    flying.set(number, loaded);
    this.#moved += moved;
    this.#trial.sent(moved);
    if (this.state === "uploading" && this.bytes === this.size && this.size) this.#setState("finishing");
  }

  // ---- failures ----

  /** Wait until it makes sense to try again; throw what does not pass. */
  async #recover(error, signal) {
    const { backoff: common, retries } = this.#context;
    if (!(error instanceof UploadError)) throw error;
    if (error === SLOW) return this.#leave();
    if (error.status === 413 && this.#isAboutChunks(error) && this.#shrink()) return;
    if (error.permanent) throw error;
    const backoff = error.ofServer ? this.#backoff : common;
    if (error.ofServer) error.retryAfter = backoff.failed(error);
    const hopeless = error.code === "checksum_mismatch" && backoff.tries >= MOST_MISMATCHES;
    if (hopeless || backoff.tries > retries) throw error;
    this.error = error;
    this.#setState(error.status === 0 && navigator.onLine === false ? "offline" : "retrying");
    await backoff.over(signal);
    if (!error.ofServer && this.#trial?.broke()) this.#shrink();
  }

  /** Say whether it may be the chunks that are too large, and not the file: for a server in between, or ours. */
  #isAboutChunks(error) {
    if (!error.ofServer || this.uploadUid || this.#largest < Infinity) return true;
    return !this.#context.pace.hasSeen(Math.min(this.#plan?.chunkSize, this.size));
  }

  /** Begin anew with smaller chunks; return false where they can't be smaller. */
  #shrink() {
    const size = this.#plan ? this.#context.pace.smaller(this.#plan.chunkSize, this.size) : 0;
    if (!size) return false;
    this.#largest = size;
    this.#leave();
    return true;
  }

  #leave() {
    this.#begun.leave(this.uploadUid);
    this.uploadUid = "";
  }

  #fail(error) {
    this.#halt();
    this.error = error instanceof UploadError ? error : new UploadError("internal", String(error?.message ?? error));
    this.error.permanent = true;
    // What has not come as far as to the server is not worth to be remembered.
    if (LOST.has(this.error.code) || this.#begun.nowhere) this.#leave();
    else this.#begun.release();
    this.#promise.reject(this.error);
    this.#setState("failed");
    this.#emit("error");
  }

  #succeed({ uploadUid, fileName, totalSize }) {
    this.#halt();
    this.#begun.forget();
    this.uploadUid = uploadUid;
    this.#acknowledged = this.size;
    this.error = null;
    this.#emit("progress");
    this.#promise.resolve({ uploadUid, url: this.#context.urlOf(uploadUid), fileName, totalSize });
    this.#setState("done");
    this.#emit("done");
  }

  #halt() {
    const stop = this.#stop;
    this.#stop = null;
    this.#flying = new Map();
    stop?.abort();
    this.#place?.();
    this.#place = null;
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

/** Return a promise with the functions that end it; whoever does not wait for it hears of errors by events. */
function promise() {
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  made.promise.catch(() => {});
  return made;
}
