// Sends a file in chunks, several at a time, and goes on after a reload, a cut connection or a restart of the server.

const CHUNK_SIZE = Number(new URLSearchParams(location.search).get("chunkSize")) || 8 << 20; // bytes
const MOST_CHUNKS = 100_000;
const PARALLEL = 3;
const TRIES = 8; // of a request that the server answers with an error that may pass; without an answer, no end
const LONGEST_PAUSE = 10; // seconds between tries, unless the server asks for more
const KEY = "upload-helper:";

const $ = (id) => document.getElementById(id);
const { uploads: UPLOADS, digest: DIGEST } = document.querySelector("main").dataset;
// Where a browser keeps nothing, a reload starts afresh and all the rest works.
const storage = (() => { try { return localStorage ?? {}; } catch { return {}; } })();

/** Return what a request failed with: text, remedy, status, pause in seconds, and whether trying again may help. */
function failureOf(xhr) {
  const { status } = xhr;
  const silent = status ? `The server answered ${status}.` : "There is no connection to the server.";
  const { error = silent, remedy = "", code } = xhr.response ?? {};
  const passing = [0, 408, 429].includes(status) || status >= 500 || ["superseded", "body_cut"].includes(code);
  const pause = Number(xhr.getResponseHeader("Retry-After"));
  return Object.assign(new Error(error), { remedy, status, pause, passing });
}

// XMLHttpRequest and not fetch, which can't say how much of a body has been sent.
function request(method, url, { body = null, signal = null, progress = null } = {}) {
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    const abort = () => xhr.abort();
    xhr.open(method, url);
    xhr.responseType = "json";
    if (body) xhr.setRequestHeader("Content-Type", "application/octet-stream");
    if (progress) xhr.upload.onprogress = (event) => progress(event.loaded);
    xhr.onloadend = () => {
      signal?.removeEventListener("abort", abort);
      if (xhr.status >= 200 && xhr.status < 300) resolve(xhr.response);
      else reject(failureOf(xhr));
    };
    signal?.addEventListener("abort", abort);
    xhr.send(body);
  });
}

/** Return the status of the upload that the server has under this identifier, name, size and count, or null. */
const find = (fields, ask = request) => ask("GET", `${UPLOADS}?${new URLSearchParams(fields)}`).catch((error) => {
  if (error.status !== 404) throw error;
  return null;
});

/** One file on its way. What finds it again after a reload is kept in the browser, its bytes are on the server. */
class Upload {
  uid = "";
  state = "Asking the server what it has already …";
  trouble = "";
  arrived = 0; // bytes that the server has acknowledged
  flying = new Map(); // chunk number → bytes sent so far
  stop = new AbortController();

  constructor(file) {
    this.file = file;
    this.key = KEY + JSON.stringify([file.name, file.size, file.lastModified]);
    this.begun = this.key in storage;
    this.kept = this.begun ? JSON.parse(storage[this.key]) : Upload.begin(file);
  }

  static begin(file) {
    const chunkSize = Math.max(CHUNK_SIZE, Math.ceil(file.size / MOST_CHUNKS));
    const chunkCount = Math.max(1, Math.ceil(file.size / chunkSize));
    // Not randomUUID, which a page that came over plain HTTP does not have.
    const identifier = crypto.getRandomValues(new Uint32Array(4)).join("-");
    return { chunkSize, fields: { identifier, fileName: file.name, totalSize: file.size, chunkCount } };
  }

  /** Send what the server lacks; return name, size, digest and uid of the file as the server has it. */
  async run() {
    const { fields } = this.kept;
    storage[this.key] = JSON.stringify(this.kept);
    let status = this.begun ? await find(fields, (...what) => this.ask(...what)) : null;
    this.state = status ? `Going on: ${bytes(status.receivedBytes)} were there already.` : "Uploading.";
    do {
      this.uid = status?.uploadUid ?? "";
      this.arrived = status?.receivedBytes ?? 0;
      const numbers = eachNumber(status?.missing ?? [[0, fields.chunkCount - 1]]);
      const send = async () => { for (const number of numbers) await this.sendChunk(number); };
      await Promise.all(Array.from({ length: PARALLEL }, send));
      status = await this.ask("GET", `${UPLOADS}/${this.uid}/status`);
    } while (status.missing.length); // A server that lost power asks again for what was not on its disk yet.
    this.state = "All of it is there. The server is computing the SHA-256 …";
    return { ...(await this.ask("GET", DIGEST + this.uid)), uid: this.uid };
  }

  async sendChunk(number) {
    const body = this.file.slice(number * this.kept.chunkSize, (number + 1) * this.kept.chunkSize);
    const query = new URLSearchParams({ ...this.kept.fields, chunkNumber: number, uploadUid: this.uid });
    const progress = (loaded) => this.flying.set(number, Math.min(loaded, body.size));
    const answer = await this.ask("POST", `${UPLOADS}?${query}`, { body, progress });
    this.flying.delete(number);
    this.arrived += body.size;
    this.uid = answer.uploadUid;
  }

  /** Send a request until it is answered; throw the errors that trying again does not mend. */
  async ask(method, url, { body = null, progress = () => {} } = {}) {
    const { signal } = this.stop;
    const moved = (loaded) => { this.trouble = ""; progress(loaded); };
    for (let tries = 1; ; tries++) {
      signal.throwIfAborted();
      try {
        const answer = await request(method, url, { body, signal, progress: moved });
        this.trouble = "";
        return answer;
      } catch (error) {
        progress(0);
        if (body && !error.status) await checkReadable(body);
        if (!error.passing || (error.status && tries === TRIES)) throw error;
        this.trouble = `${error.message} ${error.remedy} Trying again …`;
        const pause = error.pause || Math.min(LONGEST_PAUSE, 2 ** tries / 4) * (0.75 + Math.random() / 2);
        await new Promise((resolve) => setTimeout(resolve, 1000 * pause));
      }
    }
  }
}

function* eachNumber(ranges) {
  for (const [first, last] of ranges) for (let number = first; number <= last; number++) yield number;
}

/** To the browser, a file that can't be read looks like a server that can't be reached. */
const checkReadable = (blob) => blob.slice(0, 1).arrayBuffer().catch(() => {
  const remedy = "If it was changed or moved, cancel and choose it again. Folders can’t be uploaded.";
  throw Object.assign(new Error("The file can’t be read."), { remedy });
});

// ---- The page ----

let current = null; // the upload that is shown, also one that has stopped
let samples = []; // [time in ms, bytes sent], of the last seconds

function bytes(count) {
  const unit = Math.min(4, Math.floor(Math.log10(Math.max(1, count)) / 3));
  const number = (count / 1000 ** unit).toLocaleString("en", { maximumSignificantDigits: 3 });
  return `${number} ${["bytes", "kB", "MB", "GB", "TB"][unit]}`;
}

function duration(seconds) {
  return seconds < 100 ? `${Math.ceil(seconds)} s` : `${Math.ceil(seconds / 60).toLocaleString("en")} min`;
}

function setText(id, text = "") {
  if ($(id).textContent !== text) $(id).textContent = text; // so that a screen reader says it once
}

function show(part, ...more) {
  for (const id of ["upload", "result", "drop"]) $(id).hidden = ![part, ...more].includes(id);
  $("unfinished").hidden ||= part === "upload";
  setText("note", "");
  $(part === "drop" ? "file" : part).focus();
  listUnfinished();
}

function render({ arrived, flying, file, state, trouble }) {
  const sent = Math.min(file.size, [...flying.values()].reduce((sum, count) => sum + count, arrived));
  const now = performance.now();
  samples = [...samples.filter(([time]) => now - time < 8000), [now, sent]];
  const [then, before] = samples[0];
  const speed = sent < file.size && sent > before && !trouble ? ((sent - before) / (now - then)) * 1000 : 0;
  if (sent < file.size) $("progress").value = sent / file.size;
  else $("progress").removeAttribute("value");
  setText("share", `${Math.floor((100 * sent) / (file.size || 1))} %`);
  setText("amount", `${bytes(sent)} of ${bytes(file.size)}`);
  setText("speed", speed ? `${bytes(speed)}/s` : "");
  setText("left", speed ? `about ${duration((file.size - sent) / speed)} left` : "");
  setText("state", trouble || state);
}

async function start(file) {
  const upload = (current = new Upload(file));
  samples = [];
  $("problem").hidden = $("retry").hidden = true;
  setText("name", file.name);
  render(upload);
  show("upload");
  const { signal } = upload.stop;
  const timer = setInterval(() => signal.aborted || render(upload), 200);
  try {
    const result = await upload.run();
    if (!signal.aborted) showResult(result, upload.key);
  } catch (error) {
    if (!signal.aborted) showProblem(error);
    upload.stop.abort();
  } finally {
    clearInterval(timer);
  }
}

function showResult({ fileName, totalSize, sha256, uid }, key) {
  delete storage[key];
  current = null;
  setText("result-name", fileName);
  setText("result-size", bytes(totalSize) + (totalSize < 1000 ? "" : ` (${totalSize.toLocaleString("en")} bytes)`));
  setText("result-digest", sha256);
  $("download").href = `${UPLOADS}/${uid}`;
  show("result", "drop");
}

function showProblem({ message, remedy, status }) {
  for (const id of ["speed", "left", "state"]) setText(id, "");
  $("progress").value ||= 0; // stops the moving bar
  setText("error", message);
  setText("remedy", status === 404 ? "It was deleted, or has expired. Try again to send it from the start." : remedy);
  $("problem").hidden = $("retry").hidden = false;
}

/** Delete an upload on the server, and forget it here. */
async function discard(key, fields) {
  const found = await find(fields);
  if (found) await request("DELETE", `${UPLOADS}/${found.uploadUid}`);
  delete storage[key];
}

async function cancel() {
  const upload = current;
  upload.stop.abort();
  setText("state", "Cancelling …");
  // What the server could not be told in this time stays on the list.
  const patience = new Promise((resolve) => setTimeout(resolve, 5000));
  await Promise.race([patience, discard(upload.key, upload.kept.fields).catch(() => {})]);
  if (upload !== current) return; // a second click
  current = null;
  show("drop");
  setText("note", `Cancelled: ${upload.file.name}`);
}

/** Say which uploads this browser has begun; show the one that was finished while the page was away. */
async function listUnfinished() {
  const items = [];
  const others = Object.entries(storage).filter(([key]) => key.startsWith(KEY) && key !== current?.key);
  for (const [key, { fields }] of others.map(([key, kept]) => [key, JSON.parse(kept)])) {
    const status = await find(fields).catch(() => undefined);
    if (status === null) delete storage[key];
    if (!status) continue;
    const { uploadUid: uid, state, receivedBytes } = status;
    const result = state === "finished" && { ...(await request("GET", DIGEST + uid)), uid };
    if (result && !current) return showResult(result, key);
    const item = $("item").content.firstElementChild.cloneNode(true);
    item.querySelector("strong").textContent = fields.fileName;
    item.querySelector("small").textContent = `${bytes(receivedBytes)} of ${bytes(fields.totalSize)} are on the server`;
    item.querySelector("button").setAttribute("aria-label", `Delete ${fields.fileName}`);
    item.querySelector("button").onclick = () => {
      $("file").focus(); // The button vanishes.
      discard(key, fields).then(listUnfinished, ({ message }) => setText("note", message));
    };
    items.push(item);
  }
  $("list").replaceChildren(...items);
  $("unfinished").hidden = !items.length || !$("upload").hidden;
}

function pick(files) {
  if (current) setText("note", "One file at a time: wait for this one, or cancel it.");
  else if (files.length > 1) setText("note", "Choose one file at a time.");
  else if (files.length) start(files[0]);
}

$("file").onchange = ({ target }) => { pick([...target.files]); target.value = ""; };
$("cancel").onclick = cancel;
$("retry").onclick = () => start(current.file);
for (const type of ["dragover", "dragleave", "drop"]) {
  addEventListener(type, (event) => {
    event.preventDefault(); // or the browser opens the file
    $("drop").classList.toggle("over", type === "dragover");
    if (type === "drop") pick(event.dataTransfer.files);
  });
}
listUnfinished();
