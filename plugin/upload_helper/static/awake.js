// Keeps the page, and the machine if that is wanted, from falling asleep over an upload.

/** Held as long as something is under way. */
export class Awake {
  #wanted = false;
  #lock = null;
  #release = null;

  /** @param {boolean} screen keep the screen on as well; only that keeps a laptop from sleeping */
  constructor(screen) {
    this.screen = screen;
  }

  hold() {
    this.#wanted = true;
    // Browsers freeze pages in the background, but none that holds a lock; one of its own waits for nobody.
    navigator.locks?.request("upload-helper", { mode: "shared" }, () => new Promise((end) => {
      if (this.#wanted) this.#release = end;
      else end();
    })).catch(() => {});
    if (!this.screen || !navigator.wakeLock) return;
    document.addEventListener("visibilitychange", this.#keepScreen);
    this.#keepScreen();
  }

  release() {
    this.#wanted = false;
    this.#release?.();
    document.removeEventListener("visibilitychange", this.#keepScreen);
    this.#lock?.release();
    this.#lock = null;
  }

  // The browser takes the lock back whenever the page is hidden.
  #keepScreen = async () => {
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
