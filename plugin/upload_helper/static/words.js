// Words, numbers, sizes and times in the language of the page.

import texts from "./texts.js";

// One for the page, which may have this module twice: under the address of a version, and under the one for programs.
const shared = (globalThis[Symbol.for("upload-helper texts")] ??= {
  tables: new Map(Object.entries(texts)), changes: new EventTarget(),
});
const { tables } = shared;
const NEXT_UNIT = 999.5; // from here on a number has four figures once it is rounded; the server has the same rule
const SIZES = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];

/** Tells by a "change" event that there are words which were not there before. */
export const { changes } = shared;

/** Add a language, or other words for one; the widgets on the page are worded anew. */
export function addTexts(language, words) {
  const key = language.toLowerCase();
  tables.set(key, { ...tables.get(key), ...words });
  changes.dispatchEvent(new Event("change"));
}

/** Return the language in which an element is to speak: its own, or that of what it is in, or the browser's. */
export function languageOf(element) {
  for (let node = element; node; node = node.parentNode ?? node.host) {
    if (node.lang) return node.lang;
  }
  return navigator.language;
}

/** The words of one language; what it lacks is said in the broader language, and at last in English. */
export class Words {
  #tables;
  #plurals;
  #whole;
  #figures;

  /** `own`: further words by language, which go before those of the table. */
  constructor(language, own = {}) {
    const wanted = [];
    for (let tag = language.toLowerCase(); tag; tag = tag.slice(0, Math.max(0, tag.lastIndexOf("-")))) wanted.push(tag);
    const owned = new Map(Object.entries(own).map(([tag, words]) => [tag.toLowerCase(), words]));
    const known = (tag) => tables.has(tag) || owned.has(tag);
    this.language = wanted.find(known) ?? "en";
    this.#tables = [...wanted, "en"].flatMap((tag) => [owned.get(tag), tables.get(tag)]).filter(Boolean);
    this.#plurals = new Intl.PluralRules(this.language);
    this.#whole = new Intl.NumberFormat(this.language, { maximumFractionDigits: 0 });
    this.#figures = new Intl.NumberFormat(this.language, { maximumSignificantDigits: 3, useGrouping: false });
  }

  has(key) {
    return this.#tables.some((table) => key in table);
  }

  /** Return a text with its values filled in; `values.count` chooses among the forms of words that have several. */
  text(key, values = {}) {
    let text = this.#tables.find((table) => key in table)?.[key] ?? key;
    if (typeof text === "object") {
      const count = values.count ?? 1;
      text = text[count] ?? text[this.#plurals.select(count)] ?? text.other;
    }
    const shown = (value) => (typeof value === "number" ? this.#whole.format(value) : value);
    return text.replace(/\{(\w+)\}/g, (all, name) => (name in values ? shown(values[name]) : all));
  }

  /** Return a number of bytes in words, to three figures. */
  bytes(count) {
    let [unit, number] = [0, count];
    for (; number >= NEXT_UNIT && unit < SIZES.length - 1; unit += 1) number /= 1000;
    const n = (unit ? this.#figures : this.#whole).format(number);
    return this.text(`unit.${SIZES[unit]}`, { n, count: unit ? undefined : count });
  }

  /** Return a time in words, coarser the longer it is. */
  duration(seconds) {
    const minutes = Math.ceil(seconds / 60);
    if (seconds < 100) return this.text("time.seconds", { n: Math.ceil(seconds) });
    if (minutes < 100) return this.text("time.minutes", { n: minutes });
    if (minutes < 2880) return this.text("time.hours", { h: Math.floor(minutes / 60), min: minutes % 60 });
    const n = Math.floor(minutes / 1440);
    return this.text("time.days", { n, count: n });
  }
}
