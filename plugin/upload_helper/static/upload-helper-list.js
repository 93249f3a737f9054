// <upload-helper-list>: the list of a person's uploads as the server wrote it, kept in step with the page.

const CHANGES = ["upload-done", "upload-remove", "upload-error"];
const PAUSE = 300; // milliseconds in which what happens is gathered into one look

class UploadHelperListElement extends HTMLElement {
  #stop = null;
  #timer = 0;
  #again = false;
  #turn = 0;

  connectedCallback() {
    const { signal } = (this.#stop = new AbortController());
    const on = (target, type, act) => target.addEventListener(type, act, { signal });
    for (const type of CHANGES) on(document, type, () => this.#soon());
    for (const type of ["upload-pending", "upload-add"]) on(document, type, () => this.#hide());
    on(document, "visibilitychange", () => document.hidden || this.#soon());
    on(this, "submit", (event) => this.#submit(event));
    this.#hide();
  }

  disconnectedCallback() {
    this.#stop.abort();
    clearTimeout(this.#timer);
    this.#timer = 0;
  }

  /** Take the list from the page as the server makes it now. */
  async refresh() {
    const turn = ++this.#turn;
    const answer = await fetch(this.getAttribute("src") ?? location.href, { headers: { Accept: "text/html" } });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.querySelector(this.localName);
    // An older answer may come later.
    if (!fresh || turn !== this.#turn) return;
    const focused = this.contains(document.activeElement) ? document.activeElement : null;
    this.replaceChildren(...fresh.childNodes);
    this.#hide();
    if (focused) this.#focus(focused.getAttribute("aria-label"));
    this.#takeOver();
  }

  #soon() {
    this.#again = true;
    this.#timer ||= setTimeout(async () => {
      this.#again = false;
      await this.refresh().catch(() => {}); // The list as it was is better than none.
      // One after the other: a long list takes the server longer than the next change takes to come.
      this.#timer = 0;
      if (this.#again && this.isConnected) this.#soon();
    }, PAUSE);
  }

  /** Hide what a widget on the page shows as well, and better: how far an upload is, and how to go on. */
  #hide() {
    const pending = [...document.querySelectorAll("upload-helper")].flatMap((widget) => widget.pending ?? []);
    // The server knows of an upload before the page has heard of its uid.
    const isPending = ({ uid, name, size }) => pending.some(({ uploadUid, fileName, totalSize }) => (
      uploadUid ? uploadUid === uid : fileName.normalize() === name && totalSize === Number(size)
    ));
    for (const row of this.querySelectorAll("[data-state=open]")) row.hidden = isPending(row.dataset);
  }

  /** Focus what has this label, or the heading where that is gone. */
  #focus(label) {
    const labelled = [...this.querySelectorAll("[aria-label]")];
    const same = labelled.find((element) => element.getAttribute("aria-label") === label);
    (same ?? this.querySelector("[tabindex]"))?.focus();
  }

  /** Take finished files over from widgets that keep them for no form. */
  #takeOver() {
    const here = [...this.querySelectorAll("[data-state=finished]")].map(({ dataset }) => dataset.uid);
    for (const widget of document.querySelectorAll("upload-helper:not([name])")) widget.dismiss?.(here);
  }

  async #submit(event) {
    event.preventDefault();
    const form = event.target;
    const button = form.querySelector("button");
    button.disabled = true;
    const answer = await fetch(form.action, { method: "POST", body: new FormData(form) }).catch(() => null);
    button.disabled = false;
    // What the server says to it is shown as without this script.
    if (answer && !answer.ok) return form.submit();
    await this.refresh().catch(() => {});
    this.#focus();
  }
}

if (!customElements.get("upload-helper-list")) customElements.define("upload-helper-list", UploadHelperListElement);
