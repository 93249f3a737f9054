// Whether chunks of a size get through a link: that is only seen when some have been sent.

const LOOK_AFTER = 5; // seconds of sending
const SLOWEST_CHUNK = 20; // seconds
const MOST_BREAKS = 2;

/** Judges the size of an upload's chunks until the first of them has arrived. */
export class Trial {
  #pace;
  #total;
  /** Bytes of a chunk. */
  size;
  #over = false;
  #since = 0;
  #moved = 0;
  #breaks = 0;

  /** @param {{chunkSize: number, totalSize: number}} plan of the upload */
  constructor({ chunkSize, totalSize }, pace) {
    this.size = chunkSize;
    this.#total = totalSize;
    this.#pace = pace;
  }

  /** Begin to measure. */
  begin() {
    this.#since = performance.now();
    this.#moved = 0;
  }

  /** Take in that so many bytes have been sent. */
  sent(bytes) {
    this.#moved += bytes;
  }

  /** Take in that so many bytes are on the server: from one chunk on its size is kept, for the rest goes with it. */
  arrived(bytes) {
    if (bytes >= this.size) this.#over = true;
  }

  /**
   * Say whether the link is too slow for chunks of this size, `count` at a time; smaller ones are chosen from now on.
   * `step` are the seconds since it was asked before.
   */
  tooSlow(count, step) {
    // The machine has slept.
    if (step >= LOOK_AFTER) this.begin();
    const seconds = (performance.now() - this.#since) / 1000;
    const speed = this.#moved / seconds;
    if (this.#over || seconds < LOOK_AFTER || !speed || (count * this.size) / speed < SLOWEST_CHUNK) return false;
    return this.#pace.slow(this.size, this.#total, speed);
  }

  /** Take in that the link broke; say whether it breaks too soon for chunks of this size. */
  broke() {
    if (this.#over || !this.#moved) return false;
    this.#moved = 0;
    this.#breaks += 1;
    return this.#breaks >= MOST_BREAKS;
  }
}
