// What the attributes and properties of a widget say.

/** Return the list or object whose JSON an attribute holds, or `otherwise`; of a mistake the developer is told. */
export function parsed(widget, attribute, otherwise) {
  const text = widget.getAttribute(attribute);
  if (!text) return otherwise;
  const wanted = Array.isArray(otherwise) ? "a list" : "an object";
  try {
    const value = JSON.parse(text);
    if (value && typeof value === "object" && Array.isArray(value) === Array.isArray(otherwise)) return value;
  } catch {
    // Said below.
  }
  console.error(`The attribute ${attribute} of <upload-helper> is not the JSON of ${wanted}: ${text.slice(0, 80)}`);
  return otherwise;
}

/** Return the uploads that have arrived before. */
export function valueOf(widget) {
  return parsed(widget, "value", []).filter((upload) => typeof upload?.uploadUid === "string");
}

/** Return the number that an attribute holds, or null where it holds none. */
function numberIn(text) {
  return text?.trim() && Number(text) >= 0 ? Number(text) : null;
}

/** Return the limits for files, as the Uploader wants them. */
export function limitsOf(widget) {
  return { accept: widget.getAttribute("accept") ?? "", maxFileSize: numberIn(widget.getAttribute("max-file-size")) };
}

/** Return the limits for files in words, "" where there is none. */
export function hintsOf(widget, words) {
  const { accept, maxFileSize } = limitsOf(widget);
  const types = accept.split(",").map((type) => type.trim()).filter(Boolean).join(", ");
  return { limit: maxFileSize === null ? "" : words.bytes(maxFileSize), types };
}

/** Return the options of the Uploader. */
export function optionsOf(widget, token) {
  const options = { headers: (refusal) => headersOf(widget, token, refusal), wakeLock: true, ...limitsOf(widget) };
  // 0 adapts to the link, as nothing does.
  options.parallel = numberIn(widget.getAttribute("parallel")) || null;
  options.chunkSize = numberIn(widget.getAttribute("chunk-size")) || null;
  return { ...options, ...widget.options };
}

/** Return the headers of a request; after a refusal with a new token, if there is one. */
export async function headersOf(widget, token, refusal) {
  if (refusal) await token.renew();
  const given = typeof widget.headers === "function" ? await widget.headers(refusal) : widget.headers;
  return { ...token.headers(), ...parsed(widget, "headers", {}), ...given };
}
