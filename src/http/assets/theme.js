// Theme: sets `data-theme` on the root before the first paint, and owns the toggle.
// The system decides until the visitor does; the choice is remembered where storage is allowed.
// Fires `themechange` on the document when the colours have changed.
(() => {
  'use strict';
  const KEY = 'fanfare.theme';
  const system = matchMedia('(prefers-color-scheme: dark)');
  let chosen = recall();

  function recall() {
    // Storage throws when it is blocked, for instance in a sandboxed frame.
    try {
      const value = localStorage.getItem(KEY);
      return value === 'dark' || value === 'light' ? value : null;
    } catch {
      return null;
    }
  }

  function remember(value) {
    try {
      localStorage.setItem(KEY, value);
    } catch {
      // The choice then lasts as long as the page.
    }
  }

  function current() {
    return chosen ?? (system.matches ? 'dark' : 'light');
  }

  function apply() {
    const theme = current();
    document.documentElement.dataset.theme = theme;
    document.getElementById('theme')?.setAttribute('aria-pressed', String(theme === 'dark'));
    document.dispatchEvent(new Event('themechange'));
  }

  apply();
  system.addEventListener('change', apply);
  document.addEventListener('DOMContentLoaded', () => {
    apply();
    document.getElementById('theme')?.addEventListener('click', () => {
      chosen = current() === 'dark' ? 'light' : 'dark';
      remember(chosen);
      apply();
    });
  });
})();
