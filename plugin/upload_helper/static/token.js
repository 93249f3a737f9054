// The CSRF token of the host's application, which is valid for a shorter time than a large file may take.

const AGE = 15 * 60_000; // milliseconds after which it is renewed

/** The token of a page: what it came with, and later what the server gives. */
export class Token {
  /** `header` is what the token is sent in, and what the server answers a new one in. */
  constructor(endpoint, header) {
    this._endpoint = endpoint;
    this._header = header;
    this._value = document.querySelector('meta[name="csrf-token"]')?.content ?? "";
    this._time = Date.now();
  }

  set(value) {
    [this._value, this._time] = [value, Date.now()];
  }

  /** Return the header, or none where the page has no token. */
  headers() {
    if (this._value && Date.now() - this._time > AGE) {
      // The old one serves until the new one is there.
      this._time = Date.now();
      this.renew();
    }
    return this._value ? { [this._header]: this._value } : {};
  }

  /** Ask for a new token; resolves when there is one, or none to be had. */
  renew() {
    this._renewal ??= this._ask().finally(() => { this._renewal = null; });
    return this._renewal;
  }

  async _ask() {
    try {
      const answer = await fetch(this._endpoint, { method: "OPTIONS", headers: { "X-Upload-Helper": "1" } });
      const value = answer.headers.get(this._header);
      if (answer.ok && value) this.set(value);
    } catch {
      // The next request will tell what is wrong.
    }
  }
}
