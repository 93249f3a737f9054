// The SHA-256 of pieces of a file.

import { UploadError } from "./request.js";

const LANES = 2; // hashing more at a time is not faster, and takes more memory

/** Computes digests, with little memory however much is hashed. */
export class Hasher {
  #lanes = Array.from({ length: LANES }, () => new Lane());
  #turn = 0;

  /** Whether the browser can: on a page that came over plain HTTP it can't. */
  static get available() {
    return Boolean(globalThis.crypto?.subtle);
  }

  /** Return `sha256:` and the digest in hexadecimal digits; throws an UploadError if the bytes can't be read. */
  sha256(blob) {
    this.#turn = (this.#turn + 1) % LANES;
    return this.#lanes[this.#turn].sha256(blob);
  }

  /** Give the memory back. */
  rest() {
    for (const lane of this.#lanes) lane.buffer = null;
  }
}

/** Throw an UploadError if a piece of a file can't be read: it was changed or moved, or is a folder. */
export async function checkReadable(blob) {
  await blob.slice(0, 1).arrayBuffer().catch(refuse);
}

/** Return the error of a file that can't be read. */
export function unreadable() {
  const remedy = "If it was changed or moved, choose it again. A folder can’t be sent as a file.";
  return new UploadError("file_changed", "The file can’t be read any more.", { remedy });
}

/** Hashes one piece after the other in the same memory, for what a browser reads into new memory piles up. */
class Lane {
  buffer = null;
  #reader = null; // chromium collects one that nobody refers to, also when somebody waits for what it reads
  #last = Promise.resolve();

  sha256(blob) {
    const result = this.#last.then(() => this.#digest(blob));
    this.#last = result.catch(() => {});
    return result;
  }

  async #digest(blob) {
    const digest = await crypto.subtle.digest("SHA-256", await this.#read(blob).catch(refuse));
    return `sha256:${Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
  }

  async #read(blob) {
    const reader = (this.#reader = readerOf(blob));
    if (!reader) return blob.arrayBuffer();
    let buffer = this.buffer?.byteLength >= blob.size ? this.buffer : new ArrayBuffer(blob.size);
    let filled = 0;
    while (filled < blob.size) {
      // Takes the buffer away, and gives it back under another name.
      const { value, done } = await reader.read(new Uint8Array(buffer, filled, blob.size - filled));
      if (done) throw new Error("shorter than it was");
      buffer = value.buffer;
      filled += value.byteLength;
    }
    this.buffer = buffer;
    return new Uint8Array(buffer, 0, filled);
  }
}

/** Return what reads a piece into given memory, or null where the browser has no such thing. */
function readerOf(blob) {
  try {
    return blob.size ? blob.stream().getReader({ mode: "byob" }) : null;
  } catch {
    return null;
  }
}

function refuse() {
  throw unreadable();
}
