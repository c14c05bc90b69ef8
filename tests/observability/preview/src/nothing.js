// Stands for the code editor, which no panel draws and which is larger than all the rest.
export default {};
export const loader = {};
