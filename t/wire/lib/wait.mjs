// wait - for a condition, never for a time.

/** Calls fn until what it gives is truthy and returns that; throws after limit_ms. */
export async function waitFor(fn, what = 'condition', limit_ms = 10000) {
  const deadline = Date.now() + limit_ms;
  for (;;) {
    const value = await fn();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`no ${what} within ${limit_ms} ms`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** The promise's value, or an error when it takes longer than limit_ms. */
export function within(promise, what = 'answer', limit_ms = 10000) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no ${what} within ${limit_ms} ms`)), limit_ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
