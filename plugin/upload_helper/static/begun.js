// What was begun of a file: how it is sent, which the browser remembers, and the claim by which other pages let it be.

import { claim } from "./awake.js";
import { planOf } from "./pieces.js";

/** The upload of a file, from before it is on the server until after it is gone from there. */
export class Begun {
  #context;
  #file;
  #path;
  #copy;
  #hold = null; // promises what gives the upload back to other pages
  #claiming = null;
  #fresh = false; // whether the server has not acknowledged anything of it yet
  #blind = 0; // chunks that may still arrive there, and make it anew

  /** The key under which this browser remembers it. */
  key;
  /** What is kept to by all of its chunks (planOf); null before it has begun. */
  plan;

  /** @param {(key: string) => boolean} isTaken whether another file of the uploader goes by a key */
  constructor(file, path, isTaken, context) {
    this.#file = file;
    this.#path = path;
    this.#context = context;
    this.#name(0);
    while (isTaken(this.key)) this.#name(this.#copy + 1);
  }

  /** Whether the server can't have anything of it. */
  get nowhere() { return !this.plan || (this.#fresh && !this.#blind); }

  /** Take what was begun for this page; promises whether there is such a thing, at which no other page is. */
  claim() {
    // A pause and its end may come while the browser is asked.
    this.#claiming ??= this.#claimOne().finally(() => { this.#claiming = null; });
    return this.#claiming;
  }

  async #claimOne() {
    while (this.plan && !(await this.#take())) this.#name(this.#copy + 1);
    return this.plan !== null;
  }

  async #take() {
    const hold = this.#hold ?? claim(this.plan.identifier);
    if (await hold) this.#hold ??= hold;
    return this.#hold !== null;
  }

  #name(copy) {
    const { memory } = this.#context;
    this.#copy = copy;
    this.key = memory.key(this.#file, this.#path, copy);
    this.plan = memory.find(this.key);
  }

  /** Begin, with chunks of so many bytes. */
  begin(chunkSize) {
    this.plan = planOf(this.#file, this.#path, chunkSize);
    this.#context.memory.keep(this.key, this.plan);
    this.#hold = claim(this.plan.identifier);
    [this.#fresh, this.#blind] = [true, 0];
  }

  /** Send a chunk of it; return the uid of the upload. */
  async send(number, content, { uploadUid, onProgress, signal }) {
    const blind = uploadUid ? 0 : 1;
    this.#blind += blind;
    try {
      const found = await this.#context.sendChunk(this.plan, number, content, { uploadUid, onProgress, signal });
      this.#blind -= blind;
      this.#fresh = false;
      return found;
    } catch (error) {
      // Whether a chunk arrives that nobody has answered is not known.
      if (error.status) this.#blind -= blind;
      throw error;
    }
  }

  /** Forget it, for there is nothing more to be sent. */
  forget() {
    this.#context.memory.forget(this.key);
    this.release();
  }

  /** Delete it on the server and forget it, unless another page has it; resolves when that is done, or can't be now. */
  async discard(uploadUid) {
    await this.#claiming;
    if (this.plan && !this.#hold && !(await this.#take())) return;
    await this.leave(uploadUid);
  }

  /** Begin anew next time, and delete on the server what is there. */
  async leave(uploadUid) {
    const { plan, key, nowhere } = this;
    const hold = this.#hold;
    [this.plan, this.#hold] = [null, null];
    if (plan && nowhere) this.#context.memory.forget(key);
    else if (plan || uploadUid) await this.#context.discard(key, plan, { uploadUid, late: this.#blind > 0 });
    giveBack(hold);
  }

  /** Let other pages have it. */
  release() {
    giveBack(this.#hold);
    this.#hold = null;
  }
}

function giveBack(hold) {
  hold?.then((release) => release?.());
}
