export class EventStream { constructor() { throw new Error('not yet'); } }
