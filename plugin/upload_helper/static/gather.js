// Files that are dropped on a widget, or pasted into its page.

import { filesOf } from "./files.js";

// What systems leave in folders, and nobody means to send.
const RUBBISH = /^(\..*|thumbs\.db|desktop\.ini)$/i;
// Of several widgets on a page the first one takes what is pasted.
const listening = new Set();

/** Listens for files on behalf of a widget, as long as that is in the page. */
export class Gatherer {
  #widget;
  #take;
  #over;
  #refuseFolder;
  #stop = null;

  /** `take` gets files, `over` is told when files are held over the widget, `refuseFolder` that a folder came. */
  constructor(widget, { take, over, refuseFolder }) {
    this.#widget = widget;
    this.#take = take;
    this.#over = over;
    this.#refuseFolder = refuseFolder;
  }

  start() {
    const { signal } = (this.#stop = new AbortController());
    const on = (target, type, act) => target.addEventListener(type, act, { signal });
    on(this.#widget, "dragover", (event) => this.#drag(event));
    on(this.#widget, "dragleave", ({ relatedTarget }) => relatedTarget === this.#widget || this.#over(false));
    on(this.#widget, "drop", (event) => this.#drop(event));
    // A file that misses the widget would be opened by the browser instead of the page.
    const keepPage = (event) => { if (hasFiles(event.dataTransfer)) event.preventDefault(); };
    for (const type of ["dragover", "drop"]) on(document, type, keepPage);
    on(document, "paste", (event) => this.#paste(event));
    listening.add(this);
  }

  stop() {
    listening.delete(this);
    this.#stop.abort();
  }

  get #closed() {
    return this.#widget.matches(":disabled");
  }

  /** Whether a person who pastes may mean this widget: it is in sight, and nothing else has to be answered first. */
  get #open() {
    const modals = [...document.querySelectorAll(":modal")];
    const reachable = !modals.length || modals.some((modal) => modal.contains(this.#widget));
    return reachable && !this.#closed && this.#widget.getClientRects().length > 0 && !this.#widget.closest("[inert]");
  }

  #drag(event) {
    if (!hasFiles(event.dataTransfer) || this.#closed) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    this.#over(true);
  }

  async #drop(event) {
    this.#over(false);
    if (!hasFiles(event.dataTransfer)) return;
    event.preventDefault();
    const folder = [...event.dataTransfer.items].some((item) => item.webkitGetAsEntry?.()?.isDirectory);
    if (folder && !this.#widget.hasAttribute("multiple")) this.#refuseFolder();
    else this.#take((await filesOf(event.dataTransfer)).filter(isMeant));
  }

  #paste(event) {
    const path = event.composedPath();
    const files = [...(event.clipboardData?.files ?? [])].map(named);
    const typing = path[0].closest?.("input:not([type=file]), textarea, [contenteditable]");
    const first = [...listening].find((gatherer) => gatherer.#open);
    if (!files.length || (!path.includes(this.#widget) && (typing || first !== this))) return;
    event.preventDefault();
    this.#take(files);
  }
}

const hasFiles = (transfer) => [...(transfer?.types ?? [])].includes("Files");
const isMeant = ({ name, webkitRelativePath }) => !webkitRelativePath || !RUBBISH.test(name);

/** Name a picture from the clipboard by the time: there they all have one name. */
function named(file) {
  if (!/^image\.\w+$/.test(file.name)) return file;
  const time = new Date().toLocaleString("sv").replaceAll(":", ".");
  return new File([file], file.name.replace(".", ` ${time}.`), { type: file.type, lastModified: file.lastModified });
}
