// What the states of the files in a widget mean together.

const SETTLED = new Set(["done", "failed", "cancelled"]);

/** Whether a state is the last one, unless a person does something. */
export const isSettled = (state) => SETTLED.has(state);

/** Return how many files there are and have arrived, bytes, and whether any are `moving` or `resting`. */
export function summaryOf(items) {
  // What has failed will not be sent.
  const sum = (key) => items.reduce((total, item) => total + (item.state === "failed" ? 0 : item[key]), 0);
  const resting = items.some(({ state }) => state === "paused");
  const moving = items.some(({ state }) => !isSettled(state) && state !== "paused");
  const done = items.filter(({ state }) => state === "done").length;
  return { count: items.length, done, bytes: sum("bytes"), total: sum("size"), resting, moving };
}

/** Return why a form can't be sent yet: the flag of ValidityState, the key of the text, and how many files; or null. */
export function complaintOf(items, required) {
  const count = (is) => items.filter(({ state }) => is(state)).length;
  const [waiting, failed] = [count((state) => !isSettled(state)), count((state) => state === "failed")];
  if (waiting) return ["customError", "need.wait", waiting];
  if (failed) return ["customError", "need.mend", failed];
  return required && !count((state) => state === "done") ? ["valueMissing", "need.file", 1] : null;
}
