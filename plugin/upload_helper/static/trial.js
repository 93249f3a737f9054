// Whether chunks of a size get through a link: that is only seen when some have been sent.

const LOOK_AFTER = 5; // seconds of sending
const SLOWEST_CHUNK = 20; // seconds
const MOST_BREAKS = 2;

/** Judges the size of an upload's chunks until the first of them has arrived. */
export class Trial {
  #pace;
  /** Bytes of a chunk. */
  size;
  #over = false;
  #since = 0;
  #moved = 0;
  #breaks = 0;

  constructor(size, pace) {
    this.size = size;
    this.#pace = pace;
  }

  /** Begin to measure. */
  begin() {
    this.#since = Date.now();
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

  /** Say whether the link is too slow for chunks of this size, `count` at a time; smaller ones are chosen from now on. */
  tooSlow(count) {
    const seconds = (Date.now() - this.#since) / 1000;
    const speed = this.#moved / seconds;
    if (this.#over || seconds < LOOK_AFTER || !speed || (count * this.size) / speed < SLOWEST_CHUNK) return false;
    return this.#pace.slow(this.size, speed);
  }

  /** Say whether the link breaks too soon for chunks of this size; smaller ones are chosen from now on. */
  broke() {
    if (this.#over || !this.#moved) return false;
    this.#moved = 0;
    this.#breaks += 1;
    return this.#breaks >= MOST_BREAKS && this.#pace.shrink(this.size);
  }
}
