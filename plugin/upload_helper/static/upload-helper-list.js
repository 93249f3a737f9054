// <upload-helper-list>: the list of a person's uploads as the server wrote it, kept in step with what happens on the page.

const EVENTS = ["upload-add", "upload-done", "upload-remove", "upload-error"];
const PAUSE = 300; // milliseconds in which what happens is gathered into one look

class UploadListElement extends HTMLElement {
  #stop = null;
  #timer = 0;
  #turn = 0;

  connectedCallback() {
    const { signal } = (this.#stop = new AbortController());
    for (const type of EVENTS) document.addEventListener(type, () => this.#soon(), { signal });
    document.addEventListener("visibilitychange", () => document.hidden || this.#soon(), { signal });
    this.addEventListener("submit", (event) => this.#submit(event), { signal });
  }

  disconnectedCallback() {
    this.#stop.abort();
    clearTimeout(this.#timer);
    this.#timer = 0;
  }

  /** Ask the server for the list as it is now. */
  async refresh() {
    const turn = ++this.#turn;
    const answer = await fetch(this.getAttribute("src") ?? location.href, { headers: { Accept: "text/html" } });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.querySelector(this.localName);
    // An older answer may come later.
    if (fresh && turn === this.#turn) this.replaceChildren(...fresh.childNodes);
  }

  #soon() {
    this.#timer ||= setTimeout(() => {
      this.#timer = 0;
      this.refresh().catch(() => {}); // The list as it was is better than none.
    }, PAUSE);
  }

  async #submit(event) {
    event.preventDefault();
    const form = event.target;
    form.querySelector("button").disabled = true;
    const answer = await fetch(form.action, { method: "POST", body: new FormData(form) }).catch(() => null);
    // A browser without this script would show what the server says; so does this one where that is no success.
    if (answer && !answer.ok) return form.submit();
    await this.refresh().catch(() => {});
    this.querySelector("[tabindex]")?.focus();
  }
}

customElements.define("upload-helper-list", UploadListElement);
