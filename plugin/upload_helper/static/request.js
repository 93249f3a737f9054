// One request to the server, and what it can fail with.

import { Stopwatch } from "./pace.js";

/** Which of the upload server's own errors pass by themselves (docs/chunk-protocol.md). */
const PASSES = {
  body_cut: true, body_stalled: true, checksum_mismatch: true, incomplete: true, superseded: true,
  storage_error: true, storage_full: true, too_many_uploads: true,
  chunk_conflict: false, finished: false, forbidden: false, invalid_request: false, length_mismatch: false,
  length_required: false, method_not_allowed: false, not_found: false, offset_mismatch: false, too_large: false,
  unsupported_type: false, unsupported_version: false,
};
const PASSING_STATUS = [0, 408, 425, 429];
const LONGEST_WAIT = 3600; // seconds that a server may ask us to wait

/** Seconds without a byte moving after which a request is given up; the answer may take four times as long. */
export const PATIENCE = 30;

/**
 * Why a request, or an upload, failed.
 *
 * `code` is one of docs/chunk-protocol.md, or `no_connection`, `stalled`, `unexpected_answer`, `refused`,
 * `server_error`, `file_changed`, `no_headers`, `cancelled`; `status` the HTTP status, 0 without an answer; `remedy`
 * what to do; `retryAfter` seconds until it is tried again, or null; `permanent` whether it needs a person.
 */
export class UploadError extends Error {
  constructor(code, message, { status = 0, remedy = "", retryAfter = null, permanent = true } = {}) {
    super(message);
    this.name = "UploadError";
    Object.assign(this, { code, status, remedy, retryAfter, permanent });
  }

  /** Whether the upload server itself said so, and nobody in between. */
  get ofServer() {
    return this.code in PASSES;
  }
}

/**
 * Send a request; resolve with the JSON of the answer, reject with an UploadError, or with the signal's reason.
 *
 * XMLHttpRequest and not fetch, which can't say how much of a body has been sent.
 */
export function request(method, url, options = {}) {
  const { body = null, headers = {}, signal, onProgress, patience = PATIENCE, withCredentials = false } = options;
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const xhr = new XMLHttpRequest();
    xhr.open(method, url);
    xhr.responseType = "json";
    xhr.withCredentials = withCredentials;
    for (const [name, value] of Object.entries(headers)) xhr.setRequestHeader(name, value);
    const watch = watchOver(xhr, patience, onProgress);
    const abort = () => xhr.abort();
    signal?.addEventListener("abort", abort);
    xhr.onloadend = () => {
      watch.end();
      signal?.removeEventListener("abort", abort);
      if (xhr.status >= 200 && xhr.status < 300) resolve(xhr.response);
      else reject(signal?.aborted ? signal.reason : failureOf(xhr, watch.stalled));
    };
    xhr.send(body);
  });
}

/** Abort a request in which nothing moves, as after the sleep of a laptop, when the connection is dead unnoticed. */
function watchOver(xhr, patience, onProgress) {
  let quiet = new Stopwatch();
  let limit = 1000 * patience;
  const watch = { stalled: false, end: () => clearInterval(timer) };
  // The stopwatch goes on in a sleep and the timers don't, so the first tick after it tells.
  const timer = setInterval(() => {
    if (quiet.milliseconds <= limit) return;
    watch.stalled = true;
    xhr.abort();
  }, 1000);
  xhr.upload.onprogress = ({ loaded }) => {
    quiet = new Stopwatch();
    onProgress?.(loaded);
  };
  xhr.upload.onload = () => {
    quiet = new Stopwatch();
    limit *= 4;
  };
  xhr.onprogress = () => { quiet = new Stopwatch(); };
  return watch;
}

function failureOf(xhr, stalled) {
  const { status } = xhr;
  if (stalled) return new UploadError("stalled", "The connection has gone silent.", { permanent: false });
  if (!status) return new UploadError("no_connection", "There is no connection to the server.", { permanent: false });
  const { error, code, remedy = "" } = xhr.response ?? {};
  const passing = PASSES[code] ?? (PASSING_STATUS.includes(status) || status >= 500);
  const message = typeof error === "string" ? error : `The server answered ${status}.`;
  const known = typeof code === "string" && code ? code : status >= 500 ? "server_error" : "refused";
  return new UploadError(known, message, { status, remedy, retryAfter: secondsOf(xhr), permanent: !passing });
}

/** Return Retry-After in seconds, or null; it is a number, or a date (RFC 9110, section 10.2.3). */
function secondsOf(xhr) {
  const text = xhr.getResponseHeader("Retry-After");
  if (!text) return null;
  const seconds = /^\s*\d+\s*$/.test(text) ? Number(text) : (Date.parse(text) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.min(LONGEST_WAIT, Math.max(0, seconds)) : null;
}
