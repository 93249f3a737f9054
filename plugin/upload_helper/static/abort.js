// Signals to stop, and waiting that ends with them.

/** Return a controller whose signal is aborted along with another one; AbortSignal.any() is too young for it. */
export function childOf(signal) {
  const child = new AbortController();
  const abort = () => child.abort(signal.reason);
  signal.addEventListener("abort", abort, { once: true, signal: child.signal });
  if (signal.aborted) abort();
  return child;
}

/** Wait for a promise, but not beyond the moment that a signal, if there is one, is aborted. */
export function unlessAborted(signal, promise) {
  if (!signal) return promise;
  const ended = new AbortController();
  const aborted = new Promise((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true, signal: ended.signal });
    if (signal.aborted) reject(signal.reason);
  });
  return Promise.race([promise, aborted]).finally(() => ended.abort());
}
