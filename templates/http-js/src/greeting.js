/** The greeting for a path, or undefined when the path greets nobody. */
export function greeting(path) {
  const name = path.match(/^\/hello\/(.+)$/)?.[1];
  return name && `Hello, ${name}!\n`;
}
