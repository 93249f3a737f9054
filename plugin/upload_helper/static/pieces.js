// How a file is cut into chunks, and which of them are still to be sent.

const LONGEST_NAME = 255; // bytes in UTF-8 that the server takes
const LONGEST_EXTENSION = 20; // characters

/** The chunks that are still to be sent. */
export class Missing {
  #ranges;
  /** How many there are. */
  left = 0;

  /** @param {[number, number][]} ranges first and last number */
  constructor(ranges) {
    this.#ranges = ranges.map(([first, last]) => [first, last]);
    for (const [first, last] of ranges) this.left += last - first + 1;
  }

  /** Return the next number; there must be one left. */
  take() {
    const range = this.#ranges[0];
    const number = range[0]++;
    if (range[0] > range[1]) this.#ranges.shift();
    this.left -= 1;
    return number;
  }
}

/** Return how a file is to be sent: what its upload is found by, and kept to by all of its chunks. */
export function planOf(file, path, chunkSize) {
  return {
    identifier: randomIdentifier(), fileName: shortName(file.name), totalSize: file.size, chunkSize,
    chunkCount: Math.max(1, Math.ceil(file.size / chunkSize)), path, begun: Date.now(),
  };
}

/** Return 128 random bits as text. Not randomUUID, which a page that came over plain HTTP does not have. */
function randomIdentifier() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Return a name that the server takes: composed as the server does it, and cut before its extension if it is long. */
function shortName(name) {
  const whole = name.normalize("NFC");
  const bytesOf = (text) => new TextEncoder().encode(text).length;
  const dot = whole.lastIndexOf(".");
  const extension = dot > 0 && whole.length - dot <= LONGEST_EXTENSION ? whole.slice(dot) : "";
  const letters = [...whole.slice(0, whole.length - extension.length)];
  while (bytesOf(letters.join("") + extension) > LONGEST_NAME) letters.pop();
  return letters.join("") + extension;
}
