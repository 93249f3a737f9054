// Files that are dropped on a widget, or pasted into its page.

import { filesOf } from "./files.js";

// What systems leave in folders, and nobody means to send.
const RUBBISH = /^(\..*|thumbs\.db|desktop\.ini)$/i;
// Of several widgets on a page the first one takes what is pasted.
const listening = new Set();

/** Listens for files on behalf of a widget, as long as that is in the page. */
export class Gatherer {
  /** `take` gets files, `over` is told when files are held over the widget, `refuseFolder` that a folder came. */
  constructor(widget, { take, over, refuseFolder }) {
    Object.assign(this, { _widget: widget, _take: take, _over: over, _refuseFolder: refuseFolder });
  }

  start() {
    const { signal } = (this._stop = new AbortController());
    const on = (target, type, act) => target.addEventListener(type, act, { signal });
    on(this._widget, "dragover", (event) => this._drag(event));
    on(this._widget, "dragleave", ({ relatedTarget }) => relatedTarget === this._widget || this._over(false));
    on(this._widget, "drop", (event) => this._drop(event));
    // A file that misses the widget would be opened by the browser instead of the page.
    const keepPage = (event) => { if (hasFiles(event.dataTransfer)) event.preventDefault(); };
    for (const type of ["dragover", "drop"]) on(document, type, keepPage);
    on(document, "paste", (event) => this._paste(event));
    listening.add(this);
  }

  stop() {
    listening.delete(this);
    this._stop.abort();
  }

  get _closed() {
    return this._widget.matches(":disabled");
  }

  _drag(event) {
    if (!hasFiles(event.dataTransfer) || this._closed) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    this._over(true);
  }

  async _drop(event) {
    this._over(false);
    if (!hasFiles(event.dataTransfer)) return;
    event.preventDefault();
    const folder = [...event.dataTransfer.items].some((item) => item.webkitGetAsEntry?.()?.isDirectory);
    if (folder && !this._widget.hasAttribute("multiple")) this._refuseFolder();
    else this._take((await filesOf(event.dataTransfer)).filter(isMeant));
  }

  _paste(event) {
    const path = event.composedPath();
    const files = [...(event.clipboardData?.files ?? [])].map(named);
    const typing = path[0].closest?.("input:not([type=file]), textarea, [contenteditable]");
    const first = [...listening].find((gatherer) => !gatherer._closed);
    if (!files.length || (!path.includes(this._widget) && (typing || first !== this))) return;
    event.preventDefault();
    this._take(files);
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
