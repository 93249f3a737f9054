// What a page holds while something is under way, so that neither it nor the machine falls asleep over it.

const PREFIX = "upload-helper ";

/**
 * Take an upload for this page; promise a function that gives it back, or null if another page has it.
 *
 * Browsers freeze pages in the background, but none that holds a lock. On plain HTTP there are no locks.
 */
export function claim(identifier) {
  if (!navigator.locks) return Promise.resolve(() => {});
  return new Promise((resolve) => {
    const held = (lock) => new Promise((end) => {
      resolve(lock && end);
      if (!lock) end();
    });
    navigator.locks.request(PREFIX + identifier, { ifAvailable: true }, held).catch(() => resolve(() => {}));
  });
}

/** Return the identifiers of all uploads that some page of this browser has taken. */
export async function claimed() {
  const { held = [] } = (await navigator.locks?.query()) ?? {};
  const names = held.map(({ name }) => name).filter((name) => name.startsWith(PREFIX));
  return new Set(names.map((name) => name.slice(PREFIX.length)));
}

/** Keeps the screen on, and with it a laptop awake, where that is wanted. */
export class Awake {
  #wanted = false;
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
    if (document.hidden || (this.#lock && !this.#lock.released)) return;
    try {
      const lock = await navigator.wakeLock.request("screen");
      if (this.#wanted) this.#lock = lock;
      else lock.release();
    } catch {
      // A battery that runs low, or a page that may not: then the machine sleeps, and we go on when it wakes.
    }
  };
}
