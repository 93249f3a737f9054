// The files of a drop or a paste, folders included.

/**
 * Return the files of a drop or a paste, those in folders too, with their path in `webkitRelativePath`.
 *
 * To be called in the event's handler, before anything is awaited: afterwards the browser empties `dataTransfer`.
 * @param {DataTransfer} dataTransfer of a `drop` event, or `clipboardData` of a `paste` event
 * @returns {Promise<File[]>} what can't be read, and a folder, is `unreadable` among them, which an Uploader refuses
 */
export async function filesOf(dataTransfer) {
  const items = [...dataTransfer.items].filter(({ kind }) => kind === "file");
  const found = items.map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  const files = [];
  for (const entry of found) for await (const file of within(entry)) files.push(file);
  return files;
}

async function* within(entry, folder = "") {
  if (!entry) return;
  if (entry instanceof File) yield entry;
  else if (entry.isFile) yield await fileOf(entry, folder);
  else for (const child of await childrenOf(entry)) yield* within(child, `${folder}${entry.name}/`);
}

/** Return a file for what can't be read, so that a person gets to see it. */
function standIn({ name }) {
  return Object.assign(new File([], name), { unreadable: true });
}

async function fileOf(entry, folder) {
  const file = await new Promise((resolve, reject) => entry.file(resolve, reject)).catch(() => standIn(entry));
  // As the browser itself does it for a folder that was picked.
  if (folder) Object.defineProperty(file, "webkitRelativePath", { value: folder + file.name, configurable: true });
  return file;
}

async function childrenOf(entry) {
  const reader = entry.createReader();
  const children = [];
  for (;;) {
    // At most a hundred at a time, and none at the end.
    const some = await new Promise((resolve) => reader.readEntries(resolve, () => resolve(null)));
    if (!some) return [...children, standIn(entry)];
    if (!some.length) return children;
    children.push(...some);
  }
}
