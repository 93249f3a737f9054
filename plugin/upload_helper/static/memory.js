// What a browser remembers of the uploads it has begun; the bytes are on the server.

const PREFIX = "upload-helper:";
const SPEED = "speed";
const DAY = 24 * 3600 * 1000; // milliseconds
const LONGEST = 30 * DAY; // a server forgets earlier than that
const MOST = 200; // entries that are looked at

/** The uploads to one endpoint, by what tells files apart: name, size, time of the last change, and folder. */
export class Memory {
  #storage;
  #prefix;

  /** @param {Storage|null} storage where it is kept; null or one that refuses keeps it as long as the page lives */
  constructor(storage, endpoint) {
    this.#storage = storage ?? new Passing();
    this.#prefix = `${PREFIX}${endpoint}:`;
  }

  /** Return the key of a file; `copy` tells apart several of the same name, size and time. */
  key(file, path, copy) {
    return this.#prefix + JSON.stringify([path, file.name, file.size, file.lastModified, copy]);
  }

  /** Return what is known under a key, or null. */
  find(key) {
    try {
      const entry = JSON.parse(this.#storage.getItem(key));
      return entry?.identifier && entry.chunkSize > 0 ? entry : null;
    } catch {
      return null;
    }
  }

  keep(key, entry) {
    // A storage that is full, or switched off, costs going on after a reload and nothing else.
    try { this.#storage.setItem(key, JSON.stringify(entry)); } catch { /* see above */ }
  }

  /** Note that an upload is to be deleted on the server, and forget its file; return the key of the note. */
  trash(key, entry) {
    const note = this.#prefix + JSON.stringify([entry.identifier]);
    this.forget(key);
    this.keep(note, { ...entry, cancelled: true });
    return note;
  }

  forget(key) {
    try { this.#storage.removeItem(key); } catch { /* nothing was kept */ }
  }

  /** Return [key, entry] of all uploads that may still be on the server, latest first; forget the others. */
  all() {
    const found = this.#keys().map((key) => [key, this.find(key)]);
    const isAlive = ([, entry]) => entry && Date.now() - entry.begun < LONGEST;
    for (const pair of found) if (!isAlive(pair)) this.forget(pair[0]);
    return found.filter(isAlive).sort(([, a], [, b]) => b.begun - a.begun).slice(0, MOST);
  }

  /** Bytes per second that the link had lately; null if that is not known, or long ago. */
  get speed() {
    try {
      const { speed, time } = JSON.parse(this.#storage.getItem(this.#prefix + SPEED));
      return Date.now() - time < DAY && speed > 0 ? speed : null;
    } catch {
      return null;
    }
  }

  set speed(speed) {
    this.keep(this.#prefix + SPEED, { speed, time: Date.now() });
  }

  #keys() {
    try {
      const keys = Array.from({ length: this.#storage.length }, (_, index) => this.#storage.key(index));
      return keys.filter((key) => key.startsWith(`${this.#prefix}[`));
    } catch {
      return [];
    }
  }
}

/** Return the browser's storage, or null where it has none or refuses. */
export function browserStorage() {
  try { return globalThis.localStorage ?? null; } catch { return null; }
}

class Passing {
  #map = new Map();
  get length() { return this.#map.size; }
  key(index) { return [...this.#map.keys()][index]; }
  getItem(key) { return this.#map.get(key) ?? null; }
  setItem(key, value) { this.#map.set(key, value); }
  removeItem(key) { this.#map.delete(key); }
}
