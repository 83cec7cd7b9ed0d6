// A Worker that answers `hello, world`.
export default {
  fetch() {
    return new Response("hello, world");
  },
};
