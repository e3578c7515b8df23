// Window: asks the broker for its own numbers, which it shows where its configuration says so.
// Owns the operator's token.
// Invariants: the token is sent in a header, to this server and over a connection that nobody else
// can read; it is never part of an address, and is forgotten with the tab.
// Not here: what the numbers look like (`broker.js`).

const KEY = 'fanfare.operator';
const TIMEOUT_MS = 5000;

/** The broker does not answer with numbers; `name` is a reason of its table, or `noAnswer`. */
export class Refused extends Error {
  constructor(name, message) {
    super(message);
    this.name = name;
  }
}

let token = recall();

/** Whether a token may be sent at all: not in plain text through a network. */
export const isPrivate = isSecureContext;

/** Whether there is a token. */
export function hasToken() {
  return token !== '';
}

/** Takes another token, or none, which is the empty string. */
export function useToken(value) {
  token = value;
  try {
    if (token) sessionStorage.setItem(KEY, token);
    else sessionStorage.removeItem(KEY);
  } catch {
    // It then lasts as long as the page.
  }
}

/** Asks for one page of the admin API; rejects with `Refused`. */
export async function ask(page) {
  const headers = token && isPrivate ? { authorization: `Bearer ${token}` } : {};
  const options = { headers, cache: 'no-store', redirect: 'error', signal: AbortSignal.timeout(TIMEOUT_MS) };
  let answer;
  let content;
  try {
    answer = await fetch(`./admin/v1/${page}`, options);
    content = await answer.json();
  } catch {
    throw new Refused('noAnswer', 'The broker does not answer.');
  }
  if (answer.ok) return content;
  const { name, message } = content?.error ?? {};
  throw new Refused(String(name), String(message));
}

function recall() {
  // Storage throws when it is blocked, for instance in a sandboxed frame.
  try {
    return sessionStorage.getItem(KEY) ?? '';
  } catch {
    return '';
  }
}
