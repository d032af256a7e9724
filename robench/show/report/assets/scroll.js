// Boxes that scroll sideways say so where there is more than the screen shows.
"use strict";
function sayMore(box) {
  const beyond = box.scrollWidth - box.clientWidth;
  box.classList.toggle("wide", beyond > 2);
  box.classList.toggle("more", beyond > 2 && box.scrollLeft < beyond - 2);
}
const sizes = new ResizeObserver((found) => found.forEach((one) => sayMore(one.target.closest(".scroll"))));
function watchScrolls(within) {
  for (const box of within.querySelectorAll(".scroll")) {
    sizes.observe(box);
    if (box.firstElementChild) sizes.observe(box.firstElementChild);
  }
}
addEventListener("scroll", (event) => event.target.classList?.contains("scroll") && sayMore(event.target), { passive: true, capture: true });
watchScrolls(document);
