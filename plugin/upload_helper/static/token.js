// The CSRF token of the host's application, which is valid for a shorter time than a large file may take.

const AGE = 15 * 60_000; // milliseconds after which it is renewed

/** The token of a page: what it came with, and later what the server gives. */
export class Token {
  #endpoint;
  #header;
  #value = document.querySelector('meta[name="csrf-token"]')?.content ?? "";
  #time = Date.now();
  #renewal = null;

  /** `header` is what the token is sent in, and what the server answers a new one in. */
  constructor(endpoint, header) {
    this.#endpoint = endpoint;
    this.#header = header;
  }

  set(value) {
    [this.#value, this.#time] = [value, Date.now()];
  }

  /** Return the header, or none where the page has no token. */
  headers() {
    if (this.#value && Date.now() - this.#time > AGE) {
      // The old one serves until the new one is there.
      this.#time = Date.now();
      this.renew();
    }
    return this.#value ? { [this.#header]: this.#value } : {};
  }

  /** Ask for a new token; resolves when there is one, or none to be had. */
  renew() {
    this.#renewal ??= this.#ask().finally(() => { this.#renewal = null; });
    return this.#renewal;
  }

  /** Take a new token, for the forms on the page as well, which were given the same one and will be sent later. */
  #spread(value) {
    for (const input of document.querySelectorAll("input[type=hidden]")) {
      if (this.#value && input.value === this.#value) input.value = value;
    }
    this.set(value);
  }

  async #ask() {
    try {
      const answer = await fetch(this.#endpoint, { method: "OPTIONS", headers: { "X-Upload-Helper": "1" } });
      const value = answer.headers.get(this.#header);
      if (answer.ok && value) this.#spread(value);
    } catch {
      // The next request will tell what is wrong.
    }
  }
}
