// Page: the two ways in which text and small drawings reach the document.
// Invariants: only text nodes are written; the document is left alone when nothing changed.

/** Shows `words` as the text of `element`. */
export function say(element, words) {
  const node = element.firstChild;
  if (!node) element.textContent = words;
  else if (node.data !== words) node.data = words;
}

/** The element with this id. */
export function find(id) {
  return document.getElementById(id);
}
