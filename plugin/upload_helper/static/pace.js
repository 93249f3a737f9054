// How fast to go: chunks of which size, how many at a time, and how long to wait after a failure.

const KIB = 1 << 10;
const MIB = 1 << 20;
/** Bytes of a chunk, at least and at most, where nobody asks for another size. */
export const SMALLEST = 256 * KIB;
export const LARGEST = 16 * MIB;
const UNMEASURED = 8 * MIB;
const MOST_CHUNKS = 100_000;
const CHUNK_SECONDS = 4; // what a chunk should take: short enough to lose, long enough for the pause between two
const FIRST_PARALLEL = 3;
// Browsers open six connections to a server that speaks HTTP/1.1; one is left for the page.
const MOST_PARALLEL = 5;
const EPOCH = 2; // seconds of sending that are compared with each other
const SETTLED = 8; // epochs, after the best number was found, before another is tried
const SMOOTHING = 4; // seconds

/** A speed in bytes per second, smoothed over some seconds. */
export class Meter {
  #rate = 0;
  #weight = 0;

  /** Take in that `bytes` have moved in the last `seconds`. */
  add(bytes, seconds) {
    const keep = Math.exp(-seconds / SMOOTHING);
    this.#rate = keep * this.#rate + ((1 - keep) * bytes) / seconds;
    this.#weight = keep * this.#weight + (1 - keep);
  }

  /** Bytes per second; 0 while nothing is known. */
  get speed() {
    return this.#weight ? this.#rate / this.#weight : 0;
  }
}

/** The time since it was made, whether the machine has slept since, or somebody has set its clock. */
export class Stopwatch {
  #clock = Date.now(); // goes on in a sleep, and may be set
  #steady = performance.now(); // stands in a sleep on some systems

  get milliseconds() {
    return Math.max(Date.now() - this.#clock, performance.now() - this.#steady);
  }
}

/** The pauses between tries: each twice as long as the one before, with jitter, unless the server says how long. */
export class Backoff {
  #watch = null; // since the last failure
  #pause = 0; // milliseconds from then
  #wakers = new Set();
  tries = 0;
  /** Whether it was the server that has said how long. */
  asked = false;

  constructor({ first = 0.5, longest = 30 } = {}) {
    Object.assign(this, { first, longest });
  }

  /**
   * Return the seconds to wait after a failure; several of requests that were under way together count as one.
   * `begun` is a Stopwatch from when the request was sent.
   */
  failed({ retryAfter = null, begun = null } = {}) {
    if (!this.#watch || !begun || begun.milliseconds < this.#watch.milliseconds) {
      this.tries += 1;
      this.#watch = new Stopwatch();
      this.#pause = 0;
      this.asked = false;
    }
    const own = Math.min(this.longest, this.first * 2 ** (this.tries - 1)) * (0.5 + Math.random() / 2);
    // A bit more than what was asked for, so that not everybody comes back at the same moment.
    const seconds = retryAfter === null ? own : Math.max(own, retryAfter * (1 + Math.random() / 20));
    if (retryAfter !== null) this.asked = true;
    this.#pause = Math.max(this.#pause, this.#watch.milliseconds + 1000 * seconds);
    return this.#left / 1000;
  }

  /** Begin with short pauses again. One that is on goes on: what succeeded may have been sent before it. */
  succeeded() {
    this.tries = 0;
  }

  /** Whether one has to wait. */
  get held() { return this.#left > 0; }

  /** End the pause now. */
  wake() {
    this.#pause = 0;
    for (const end of [...this.#wakers]) end();
  }

  /** Resolve when the pause is over; reject with the reason of the signal. */
  async over(signal) {
    // A timer may stand while the machine sleeps.
    while (this.held) await this.#sleep(Math.ceil(Math.min(this.#left, 1000 * this.longest)), signal);
    signal.throwIfAborted();
  }

  get #left() {
    return this.#watch ? this.#pause - this.#watch.milliseconds : 0;
  }

  #sleep(milliseconds, signal) {
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        signal.removeEventListener("abort", end);
        this.#wakers.delete(end);
        resolve();
      };
      const timer = setTimeout(end, milliseconds);
      signal.addEventListener("abort", end);
      this.#wakers.add(end);
      if (signal.aborted) end();
    }).then(() => signal.throwIfAborted());
  }
}

/** Lets only so many requests through at a time, those of the earliest file first, and none in a pause. */
export class Gate {
  #taken = 0;
  #queue = [];

  /**
   * @param {() => number} limit how many at a time
   * @param {Backoff} backoff the pauses that everybody keeps
   */
  constructor(limit, backoff) {
    Object.assign(this, { limit, backoff });
  }

  /** Resolve, when it is one's turn, with a function that gives the place back. */
  async take(order, signal) {
    for (;;) {
      const release = await this.#enter(order, signal);
      if (!this.backoff.held) return release;
      release();
      await this.backoff.over(signal);
    }
  }

  #enter(order, signal) {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      const waiting = { order, resolve, leave: () => signal.removeEventListener("abort", giveUp) };
      const giveUp = () => {
        this.#queue.splice(this.#queue.indexOf(waiting), 1);
        reject(signal.reason);
      };
      signal.addEventListener("abort", giveUp, { once: true });
      const place = this.#queue.findLastIndex((other) => other.order <= order) + 1;
      this.#queue.splice(place, 0, waiting);
      this.#admit();
    });
  }

  #admit() {
    while (this.#taken < this.limit() && this.#queue.length) {
      const { resolve, leave } = this.#queue.shift();
      leave();
      this.#taken += 1;
      resolve(() => {
        this.#taken -= 1;
        this.#admit();
      });
    }
  }
}

/** Chooses the size of chunks for a file from the speed of the link, and seeks the best number of them at a time. */
export class Pace {
  #fixed;
  #largest = LARGEST;
  #proved = 0; // bytes of the largest chunk that has arrived
  #direction = 1;
  #settled = 0; // epochs for which it stays as it is
  #last = 0; // bytes per second in the epoch before
  #began = 0;
  #bytes = 0;

  /** @param {{parallel: ?number, chunkSize: ?number, speed: ?number}} known numbers fix what otherwise adapts */
  constructor({ parallel = null, chunkSize = null, speed = null } = {}) {
    this.#fixed = parallel;
    this.chunkSize = chunkSize;
    this.speed = speed;
    this.parallel = parallel ?? FIRST_PARALLEL;
  }

  /** The largest number of chunks at a time that may come up. */
  get most() {
    return this.#fixed ?? MOST_PARALLEL;
  }

  /** Return the bytes of a chunk for a file of `size` bytes, at most `largest` if that can be. */
  chunkSizeFor(size, largest = Infinity) {
    return Math.max(Math.min(this.chunkSize ?? this.#bySpeed(), largest), Math.ceil(size / MOST_CHUNKS), 1);
  }

  #bySpeed() {
    if (!this.speed) return Math.min(this.#largest, UNMEASURED);
    const wanted = (this.speed / this.parallel) * CHUNK_SECONDS;
    // Powers of two keep to the blocks of disks.
    return Math.max(SMALLEST, Math.min(this.#largest, 2 ** Math.floor(Math.log2(wanted))));
  }

  /** Return the bytes of smaller chunks than `size` for a file of `total` bytes, or 0 where they can't be smaller. */
  smaller(size, total) {
    if (this.chunkSize) return 0;
    const wanted = Math.max(SMALLEST, 2 ** Math.floor(Math.log2(Math.min(size, total)) - 2));
    const found = this.chunkSizeFor(total, wanted);
    return found < size ? found : 0;
  }

  /** Take in that only chunks of so many bytes get through. */
  limit(largest) {
    this.#largest = Math.min(this.#largest, largest);
  }

  /** Whether chunks of so many bytes have got through. */
  hasSeen(bytes) {
    return bytes <= this.#proved;
  }

  /** Take in that a link is too slow for chunks of `size`; return false where those of such a file can't be smaller. */
  slow(size, total, speed) {
    this.speed = speed;
    return this.chunkSizeFor(total) < size;
  }

  /** Take in that a chunk of so many bytes has arrived. */
  arrived(bytes, now = performance.now()) {
    this.#proved = Math.max(this.#proved, bytes);
    if (this.parallel === 1 && this.#fixed === null) this.parallel = FIRST_PARALLEL;
    // Small files say how long a request takes, and little of the link.
    if (bytes < SMALLEST && bytes < this.chunkSizeFor(0)) return this.rest(now);
    this.#began ||= now;
    this.#bytes += bytes;
    const seconds = (now - this.#began) / 1000;
    if (seconds < EPOCH) return;
    const speed = this.#bytes / seconds;
    this.speed = speed;
    if (this.#fixed === null) this.#step(speed);
    this.#last = speed;
    this.rest(now);
  }

  // Climbs while that makes it faster; where it makes no difference, fewer are better.
  #step(speed) {
    if (this.#settled > 0) {
      this.#settled -= 1;
      return;
    }
    const slower = this.#last && speed < 0.95 * this.#last;
    if (this.#last && !slower && speed < 1.05 * this.#last) this.#direction = -1;
    const next = this.parallel + (slower ? -this.#direction : this.#direction);
    if (slower || next < 2 || next > MOST_PARALLEL) {
      this.#direction = -this.#direction;
      this.#settled = SETTLED;
    }
    this.parallel = Math.min(MOST_PARALLEL, Math.max(2, next));
  }

  /** Begin the measurement anew, as after a pause in which nothing was to be sent. */
  rest(now = 0) {
    this.#began = now;
    this.#bytes = 0;
  }

  /** Take in that the link broke: one chunk at a time, until one arrives. */
  broke() {
    if (this.#fixed === null) this.parallel = 1;
    this.#last = 0;
    this.#settled = 0;
    this.#direction = 1;
    this.rest();
  }
}
