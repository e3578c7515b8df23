// Page: a page in a browser, and all that its browser complains of.
// Invariants: nothing is waited for without a deadline; a page ends with its test.

export const DEADLINE_MS = 30_000;

/** Opens an address in a context of its own, or in that of another page. */
export async function open(t, browser, url, { beside, width = 1280, height = 900, scheme } = {}) {
  const context = beside ? beside.browserContext() : await browser.createBrowserContext();
  if (!beside) t.after(() => context.close());
  const page = await context.newPage();
  page.setDefaultTimeout(DEADLINE_MS);
  await page.setViewport({ width, height });
  if (scheme) await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
  page.errors = [];
  page.on('console', (line) => ['error', 'warn'].includes(line.type()) && page.errors.push(`${line.text()} ${line.location()?.url ?? ''}`));
  page.on('pageerror', (error) => page.errors.push(String(error)));
  await page.evaluateOnNewDocument(watch);
  await page.goto(url);
  return page;
}

/** Runs in the page, before anything else. */
function watch() {
  window.violations = [];
  document.addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) => {
    window.violations.push(`${violatedDirective} ${blockedURI}`);
  });
  addEventListener('unhandledrejection', ({ reason }) => window.violations.push(`unhandled: ${reason}`));
  // Not every engine tells how much a page moves under its reader.
  window.shift = 0;
  if (!PerformanceObserver.supportedEntryTypes.includes('layout-shift')) return;
  const add = (list) => list.getEntries().forEach((entry) => entry.hadRecentInput || (window.shift += entry.value));
  new PerformanceObserver(add).observe({ type: 'layout-shift', buffered: true });
}

/** All that the browser complained of, but for what a broker that is gone makes it say. */
export async function wrong(page) {
  const isGone = (text) => /ERR_CONNECTION|ERR_SOCKET_NOT_CONNECTED|ERR_INTERNET_DISCONNECTED|ERR_EMPTY_RESPONSE|establish a connection|was interrupted|closed before receiving a handshake|Back-Forward Cache/.test(text);
  return [...page.errors.filter((text) => !isGone(text)), ...(await page.evaluate(() => window.violations))];
}

/** The text of an element. */
export function text(page, selector) {
  return page.$eval(selector, (element) => element.textContent);
}

/** Waits until a function of the page says yes. */
export function until(page, isRight, ...args) {
  return page.waitForFunction(isRight, { polling: 50 }, ...args);
}
