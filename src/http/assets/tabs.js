// Tabs: one panel at a time, chosen by pointer, by keys, or by the `#…` of the address.
// Owns which tab is chosen.
// Invariants: the chosen tab alone is in the order of the Tab key; an address that names no tab
// changes nothing.
// Not here: what the panels show.

const STEPS = { ArrowLeft: -1, ArrowRight: 1 };

export class Tabs {
  #tabs;
  #told;

  /** The name of the chosen tab. */
  chosen = '';

  /** `told` is called with the name of each tab that is chosen, the first one too. */
  constructor(list, told) {
    this.#tabs = [...list.querySelectorAll('[role="tab"]')];
    this.#told = told;
    list.addEventListener('keydown', (event) => this.#press(event));
    // A click is left to the browser: the tabs are links, so a new window and the way back work.
    addEventListener('hashchange', () => this.#follow());
    this.#choose(this.#named(location.hash) ?? this.#tabs[0]);
  }

  #named(hash) {
    return this.#tabs.find((tab) => tab.hash === hash);
  }

  #follow() {
    const tab = this.#named(location.hash);
    if (tab) this.#choose(tab);
  }

  #press(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
    const at = this.#tabs.indexOf(event.target);
    if (at < 0) return;
    const next = this.#tabs.at(this.#next(event.key, at));
    if (event.key === ' ') next.click();
    else if (next === event.target) return;
    event.preventDefault();
    if (event.key === ' ') return;
    // Walking along the tabs leaves no trail to walk back.
    history.replaceState(null, '', next.hash);
    this.#choose(next);
    next.focus();
  }

  #next(key, at) {
    if (key === 'Home') return 0;
    if (key === 'End') return -1;
    return (at + (STEPS[key] ?? 0)) % this.#tabs.length;
  }

  #choose(chosen) {
    for (const tab of this.#tabs) {
      const isChosen = tab === chosen;
      tab.setAttribute('aria-selected', String(isChosen));
      tab.tabIndex = isChosen ? 0 : -1;
      document.getElementById(tab.getAttribute('aria-controls')).hidden = !isChosen;
    }
    this.chosen = chosen.hash.slice(1);
    this.#told(this.chosen);
  }
}
