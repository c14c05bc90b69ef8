// This one is CommonJS, and an .mjs file importing its default gets the whole module; so it is handed over by name.
export { Scrollbars as default, Scrollbars } from '../node_modules/react-custom-scrollbars-2/lib/index.js';
