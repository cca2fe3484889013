// wait - for a condition, never for a time.

// A limit says what is long on a quiet machine. On one with much else to do everything takes longer, and a wait that ends
// well takes no longer for a generous limit.
const patience = /asan|tsan|cover/.test(process.env.PARLEY_BUILD ?? '') ? 5 : 3;

/** Calls fn until what it gives is truthy and returns that; throws after limit_ms. */
export async function waitFor(fn, what = 'condition', limit_ms = 10000) {
  const deadline = Date.now() + patience * limit_ms;
  for (;;) {
    const value = await fn();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`no ${what} within ${patience * limit_ms} ms`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** The promise's value, or an error when it takes longer than limit_ms. */
export function within(promise, what = 'answer', limit_ms = 10000) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no ${what} within ${patience * limit_ms} ms`)), patience * limit_ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
