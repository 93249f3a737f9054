// What a page holds while something is under way, so that neither it nor the machine falls asleep over it.

const PREFIX = "upload-helper ";
// What this page has taken where there are no locks: on plain HTTP, and in a frame without an origin.
const taken = new Set();

/**
 * Take an upload for this page; promise a function that gives it back, or null if another page has it.
 *
 * Browsers freeze pages in the background, but none that holds a lock. Where there are no locks, only what this page
 * has taken itself is known.
 */
export function claim(identifier) {
  if (!navigator.locks) return Promise.resolve(claimHere(identifier));
  return new Promise((resolve) => {
    const held = (lock) => new Promise((end) => {
      resolve(lock && end);
      if (!lock) end();
    });
    const refused = () => resolve(claimHere(identifier));
    navigator.locks.request(PREFIX + identifier, { ifAvailable: true }, held).catch(refused);
  });
}

function claimHere(identifier) {
  if (taken.has(identifier)) return null;
  taken.add(identifier);
  return () => taken.delete(identifier);
}

/** Return the identifiers of all uploads that some page of this browser has taken. */
export async function claimed() {
  const { held = [] } = (await navigator.locks?.query().catch(() => null)) ?? {};
  const names = held.map(({ name }) => name).filter((name) => name.startsWith(PREFIX));
  return new Set([...taken, ...names.map((name) => name.slice(PREFIX.length))]);
}

/** Keeps the screen on, and with it a laptop awake, where that is wanted. */
export class Awake {
  #wanted = false;
  #asking = false;
  #lock = null;

  hold() {
    if (!navigator.wakeLock) return;
    this.#wanted = true;
    document.addEventListener("visibilitychange", this.#keep);
    this.#keep();
  }

  release() {
    this.#wanted = false;
    document.removeEventListener("visibilitychange", this.#keep);
    this.#lock?.release();
    this.#lock = null;
  }

  // The browser takes the lock back whenever the page is hidden.
  #keep = async () => {
    if (document.hidden || this.#asking || (this.#lock && !this.#lock.released)) return;
    this.#asking = true;
    try {
      const lock = await navigator.wakeLock.request("screen");
      if (this.#wanted) this.#lock = lock;
      else lock.release();
    } catch {
      // A battery that runs low, or a page that may not: then the machine sleeps, and we go on when it wakes.
    }
    this.#asking = false;
  };
}
