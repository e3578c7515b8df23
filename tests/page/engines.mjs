// Engines: the browsers that run the suites, as Debian ships them, headless.
// Both are driven by one library: Chromium by its own protocol, Firefox by WebDriver BiDi.
// Invariants: no browser opens a connection of its own.

import assert from 'node:assert/strict';
import puppeteer from 'puppeteer-core';

/** A name that leads to this machine, although no browser takes it for one that does. */
export const ELSEWHERE = 'broker.test';

const FIREFOX = {
  'app.normandy.enabled': false,
  'app.update.enabled': false,
  'browser.newtabpage.enabled': false,
  'browser.region.network.url': '',
  'browser.safebrowsing.update.enabled': false,
  'extensions.update.enabled': false,
  'media.gmp-manager.url': 'data:,',
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
  'network.dns.disablePrefetch': true,
  'network.dns.localDomains': ELSEWHERE,
  'network.prefetch-next': false,
  'services.settings.server': 'data:,#remote-settings-dummy/v1',
  'toolkit.telemetry.server': 'data:,',
};

const ENGINES = {
  chromium: {
    path: 'CHROMIUM',
    options: {
      browser: 'chrome',
      // Inside a container there is often no sandbox to be had, and only this host's pages are opened.
      args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-quic', '--disable-background-networking', '--disable-component-update', '--disable-sync', `--host-resolver-rules=MAP ${ELSEWHERE} 127.0.0.1`],
    },
  },
  firefox: {
    path: 'FIREFOX',
    options: { browser: 'firefox', extraPrefsFirefox: FIREFOX },
  },
};

/** Starts a browser. */
export async function launch(name) {
  const { path, options } = ENGINES[name];
  const executablePath = process.env[path];
  assert.ok(executablePath, `${path} must name the browser to test with`);
  return puppeteer.launch({ executablePath, headless: true, timeout: 60_000, ...options });
}

/** What an engine can be asked for by its protocol. */
export function can(name) {
  return { scheme: name === 'chromium', freeze: name === 'chromium' };
}

/** Stops everything in a page, as a browser does to save power; returns what lets it go on. */
export async function freeze(page) {
  const session = await page.createCDPSession();
  await session.send('Page.setWebLifecycleState', { state: 'frozen' });
  return () => session.send('Page.setWebLifecycleState', { state: 'active' });
}
