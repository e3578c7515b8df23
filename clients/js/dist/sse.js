// Fanfare client. Made of clients/js/src by `npm run build`; MIT OR Apache-2.0.
var o=class{constructor(){throw new Error("not yet")}};export{o as EventStream};
