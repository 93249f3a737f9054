// What the attributes and properties of a widget say.

/** Return the value of JSON in an attribute, or `otherwise` where there is none; what is no JSON is a mistake. */
export function parsed(widget, attribute, otherwise) {
  const text = widget.getAttribute(attribute);
  return text ? JSON.parse(text) : otherwise;
}

/** Return the limits for files, as the Uploader wants them. */
export function limitsOf(widget) {
  const size = widget.getAttribute("max-file-size");
  return { accept: widget.getAttribute("accept") ?? "", maxFileSize: size ? Number(size) : null };
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
  if (widget.hasAttribute("parallel")) options.parallel = Number(widget.getAttribute("parallel"));
  if (widget.hasAttribute("chunk-size")) options.chunkSize = Number(widget.getAttribute("chunk-size"));
  return { ...options, ...widget.options };
}

/** Return the headers of a request; after a refusal with a new token, if there is one. */
export async function headersOf(widget, token, refusal) {
  if (refusal) await token.renew();
  const given = typeof widget.headers === "function" ? await widget.headers(refusal) : widget.headers;
  return { ...token.headers(), ...parsed(widget, "headers", {}), ...given };
}
