// Making elements without HTML: what is shown as text can't become markup, and no content security policy objects.

const SVG = "http://www.w3.org/2000/svg";

const PATHS = {
  upload: "M12 16V4m0 0L7 9m5-5 5 5M4 16v3a1 1 0 0 0 1 1h14a1 1 0 0 0 1-1v-3",
  folder: "M3 7a1 1 0 0 1 1-1h5l2 2h9a1 1 0 0 1 1 1v9a1 1 0 0 1-1 1H4a1 1 0 0 1-1-1z",
  file: "M6 3h8l5 5v12a1 1 0 0 1-1 1H6a1 1 0 0 1-1-1V4a1 1 0 0 1 1-1zm8 0v5h5",
  pause: "M9 5.5v13M15 5.5v13",
  resume: "M8 5.5v13l10.5-6.5z",
  retry: "M20 12a8 8 0 1 1-2.6-5.9M20 3v4h-4",
  remove: "M6 6l12 12M18 6 6 18",
  done: "m5 12.5 4.7 4.7L19 7.5",
  failed: "M12 7v6m0 3.5v.5M12 3 2.5 20h19z",
};

/** Return a new element; functions become properties, true an empty attribute, and false and null nothing. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function" || name === "textContent") element[name] = value;
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Return a line drawing, which says nothing to who can't see it. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const path = svg.appendChild(document.createElementNS(SVG, "path"));
  svg.setAttribute("viewBox", "0 0 24 24");
  // Where the style sheet does not come, it would be as large as the page.
  for (const side of ["width", "height"]) svg.setAttribute(side, "24");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", `icon ${name}`);
  path.setAttribute("d", PATHS[name]);
  return svg;
}

/** Return a name without the marks that turn around what follows: by them an "exe" may end in "jpg" to the eye. */
export const legible = (name) => name.replace(/[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "");

/** Return a name for the middle of a sentence, whose direction it does not change. */
export const isolated = (name) => `\u2068${legible(name)}\u2069`;

/** Return a text within which no line ends. */
export const unbroken = (text) => text.replaceAll(" ", "\u00a0");

/** Change a text only where it differs, so that nothing is rendered, or read out, that is the same as before. */
export function setText(element, text = "") {
  if (element.textContent !== text) element.textContent = text;
}

/** Change an attribute only where it differs; null takes it away. */
export function setAttribute(element, name, value) {
  if (element.getAttribute(name) === value) return;
  if (value === null) element.removeAttribute(name);
  else element.setAttribute(name, value);
}
